"""Spend what a conservative search left over: raise or insert the best gain per byte while it fits."""

from collections.abc import Sequence

import numpy as np

from taskit.scheduler.trellis import Option


def spend_leftover(
    ranks: Sequence[int], room: int, needs: np.ndarray, sizes: np.ndarray, options: Sequence[Sequence[Option]]
) -> list[int]:
    """Return ranks of no smaller value that fit `room` (bytes above the empty strategy), priced over the exact union.

    Args as in `build_trellis`; ties go to the later location and the lower rank.
    """
    held = [
        next((o for o in choices if o.rank == r), Option(0, 0, 0)) for r, choices in zip(ranks, options, strict=True)
    ]
    while True:
        inserted = np.array([option.rank > 0 for option in held])
        kept = needs[inserted].any(axis=0)
        left = room - sum(option.bytes for option in held) - int(sizes[kept].sum())
        unpaid = ((needs & ~kept) @ sizes).tolist()
        raises = [
            ((option.gain - now.gain) / max(1, extra), k, -option.rank, option)
            for k, (now, choices) in enumerate(zip(held, options, strict=True))
            for option in choices
            if option.gain > now.gain and (extra := option.bytes - now.bytes + unpaid[k]) <= left
        ]
        if not raises:
            return [option.rank for option in held]
        _, k, _, option = max(raises, key=lambda candidate: candidate[:3])
        held[k] = option
