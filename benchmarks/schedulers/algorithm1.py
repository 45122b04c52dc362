"""Algorithm 1 of TaskIT in the form that can be run, with U = 500 bins of the budget.

F[k][b] is the best value whose last insertion is exactly k; what k adds to its predecessor k_s is
dM(k, r | k_s) = w(k, r) + m_x . (g(k) OR g(k_s)) - m_x . g(k_s), rounded up to bins. As printed, with line 8 and
memories of single locations, it overspends the budget.
"""

import math

import numpy as np

from taskit.scheduler.problem import Problem

U = 500


def _bins(problem: Problem, free_bytes: int) -> np.ndarray:
    """dM in bins, rounded up: (location, predecessor or none at 0, rank)."""
    weighted = problem.needs * problem.sizes
    fresh = weighted @ ~problem.needs.T  # what k needs and k_s does not
    above = np.concatenate([weighted.sum(axis=1, keepdims=True), fresh], axis=1)
    return -(-(above[:, :, None] + problem.bytes[:, None, :]) * U // max(1, free_bytes))


def algorithm1(problem: Problem, free_bytes: int) -> list[int]:
    """All bins of a transition at once."""
    bins = _bins(problem, free_bytes).tolist()
    n, ranks = len(problem.locations), len(problem.ranks)
    value = np.full((n + 1, U + 1), -math.inf)
    value[0] = 0.0
    came = np.zeros((n + 1, U + 1, 2), np.int64)
    for k in range(1, n + 1):
        for before in range(k):
            for j in range(ranks):
                cost = bins[k - 1][before][j]
                if cost <= U:
                    reached = value[before, : U + 1 - cost] + problem.values[k - 1, j]
                    better = reached > value[k, cost:]
                    value[k, cost:][better] = reached[better]
                    came[k, cost:][better] = before, j
    return _backtrack(problem, bins, value, came)


def algorithm1_loops(problem: Problem, free_bytes: int) -> list[int]:
    """Location, predecessor, rank and bin in four loops, as the paper prints them."""
    bins, values = _bins(problem, free_bytes).tolist(), problem.values.tolist()
    n = len(problem.locations)
    value = [[0.0] * (U + 1)] + [[-math.inf] * (U + 1) for _ in range(n)]
    came = [[(0, 0)] * (U + 1) for _ in range(n + 1)]
    for k in range(1, n + 1):
        best, parent = value[k], came[k]
        for before in range(k):
            source = value[before]
            for j, gain in enumerate(values[k - 1]):
                cost = bins[k - 1][before][j]
                for b in range(cost, U + 1):
                    reached = source[b - cost] + gain
                    if reached > best[b]:
                        best[b], parent[b] = reached, (before, j)
    return _backtrack(problem, bins, np.array(value), np.array(came))


def _backtrack(problem: Problem, bins: list, value: np.ndarray, came: np.ndarray) -> list[int]:
    ranks = [0] * len(problem.locations)
    k, b = (int(i) for i in np.unravel_index(value.argmax(), value.shape))
    while k:
        before, j = came[k, b].tolist()
        ranks[k - 1] = int(problem.ranks[j])
        k, b = before, b - bins[k - 1][before][j]
    return ranks
