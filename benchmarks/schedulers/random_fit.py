"""Random: locations in random order, each at a random rank if that fits."""

import numpy as np

from taskit.scheduler.problem import Problem


def random_fit(problem: Problem, free_bytes: int) -> list[int]:
    rng = np.random.default_rng(0)
    ranks = [0] * len(problem.locations)
    for k in rng.permutation(len(ranks)).tolist():
        ranks[k] = int(rng.choice(problem.ranks))
        if problem.bytes_of(ranks) > free_bytes:
            ranks[k] = 0
    return ranks
