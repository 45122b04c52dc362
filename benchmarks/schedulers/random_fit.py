"""Random: locations in random order, each at a random rank if that fits."""

import numpy as np

from taskit.scheduler.options import Problem


def random_fit(problem: Problem, room: int) -> list[int]:
    rng = np.random.default_rng(0)
    ranks = [0] * len(problem.places)
    for k in rng.permutation(len(ranks)).tolist():
        ranks[k] = int(rng.choice(problem.ranks))
        if problem.bytes_of(ranks) > room:
            ranks[k] = 0
    return ranks
