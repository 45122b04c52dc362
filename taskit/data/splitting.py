"""A held-out split: stratified, seeded, and with every class on both sides."""

from collections.abc import Hashable, Sequence

import numpy as np


def split(strata: Sequence[Hashable], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Part the positions 0 … n-1 into (training, evaluation), both in ascending order.

    Of each stratum of n ≥ 2 rows, `fraction` · n go to the evaluation, rounded, but at least one and at most n - 1;
    a lone row trains. The same seed gives the same split.
    """
    groups: dict[Hashable, list[int]] = {}
    for position, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(position)
    generator = np.random.default_rng(seed)
    held_out: list[int] = []
    for members in groups.values():
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held_out.extend(generator.permutation(members)[:count].tolist())
    kept = set(range(len(strata))).difference(held_out)
    return sorted(kept), sorted(held_out)
