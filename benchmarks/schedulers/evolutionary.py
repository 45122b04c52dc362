"""Evolutionary search: scipy's differential evolution over one number per location, its rank's position in R."""

import numpy as np
from scipy.optimize import differential_evolution

from taskit.scheduler.problem import Problem

POPULATION, GENERATIONS = 300, 1000


def evolutionary(problem: Problem, free_bytes: int) -> list[int]:
    """Return the best strategy met; one over the budget is worth minus the share by which it is over."""
    n, choices = len(problem.locations), len(problem.ranks) + 1
    needs, rows = problem.needs.astype(np.float32), np.arange(n)[:, None]
    sizes = np.concatenate([np.zeros((n, 1), np.int64), problem.bytes], axis=1)
    values = np.concatenate([np.zeros((n, 1)), problem.values], axis=1)

    def loss(points: np.ndarray) -> np.ndarray:
        chosen = np.minimum(points.astype(int), choices - 1)  # (locations, population)
        kept = needs.T @ (chosen > 0) > 0
        price = sizes[rows, chosen].sum(axis=0) + problem.sizes @ kept
        return np.where(price > free_bytes, price / max(1, free_bytes), -values[rows, chosen].sum(axis=0))

    rng = np.random.default_rng(0)
    # from the output backwards, as random strategies need everything upstream to be kept and never fit
    reach = rng.random((POPULATION, 1)) * n
    start = rng.random((POPULATION, n)) * choices * (np.arange(n) >= n - reach)
    start[0] = 0.0
    found = differential_evolution(
        loss,
        [(0, choices)] * n,
        init=start,
        maxiter=GENERATIONS,
        tol=0,
        polish=False,
        vectorized=True,
        updating="deferred",
        rng=0,
    )
    chosen = np.minimum(found.x.astype(int), choices - 1)
    return [0 if c == 0 else int(problem.ranks[c - 1]) for c in chosen.tolist()]
