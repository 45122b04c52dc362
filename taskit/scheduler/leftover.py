"""Spend what an inexact search left over: raise or insert the best gain for its share of what is left."""

from collections.abc import Sequence

import numpy as np

from taskit.scheduler.options import SKIP, Option, Problem


def spend_leftover(
    ranks: Sequence[int], room: int, problem: Problem, options: Sequence[Sequence[Option]]
) -> list[int]:
    """Return ranks of no smaller value that fit `room` (bytes above the empty strategy), priced over the exact union.

    `options` are those of `problem`; ties go to the later location and the lower rank.
    """
    held = [next((o for o in choices if o.rank == r), SKIP) for r, choices in zip(ranks, options, strict=True)]
    limit = problem.max_parameters
    while True:
        inserted = np.array([option.rank > 0 for option in held])
        kept = problem.needs[inserted].any(axis=0)
        left = room - sum(option.bytes for option in held) - int(problem.sizes[kept].sum())
        spare = None if limit is None else limit - sum(option.parameters for option in held)
        unpaid = ((problem.needs & ~kept) @ problem.sizes).tolist()
        raises = [
            ((option.gain - now.gain) / max(1e-9, share), k, -option.rank, option)
            for k, (now, choices) in enumerate(zip(held, options, strict=True))
            for option in choices
            if option.gain > now.gain and (share := _share(option, now, unpaid[k], left, spare)) <= 1
        ]
        if not raises:
            return [option.rank for option in held]
        _, k, _, option = max(raises, key=lambda candidate: candidate[:3])
        held[k] = option


def _share(option: Option, now: Option, unpaid: int, left: int, spare: int | None) -> float:
    """Return which part of what is left, bytes or parameters, the step takes at most; 2 if it does not fit."""
    size, parameters = option.bytes - now.bytes + unpaid, option.parameters - now.parameters
    if size > left or (spare is not None and parameters > spare):
        return 2.0
    return max(size / max(1, left), 0.0 if spare is None else parameters / max(1, spare))
