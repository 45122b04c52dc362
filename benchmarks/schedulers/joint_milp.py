"""The joint problem, over ranks, recomputed blocks and steps, as one mixed-integer program for each step (milp.py).

x[k, r] says which rank location k gets, c[b] whether block b is recomputed. Storage or block's input s is wanted[s]
if anything that needs it is inserted, and kept[s] if besides c does not spare it: kept >= wanted - c for what a block
makes, kept >= wanted - (1 - c) for its input. Of the rank-sized activations of x[k, r], spared[k, r] <= x[k, r] are
not kept, and these only where c is 1.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import optimize, sparse

from benchmarks.schedulers.milp import GAP, Optimum, nested
from taskit.memory.profile import MemoryProfile, Storage
from taskit.scheduler import ANY, Step, rank_gain

INFEASIBLE = 2  # a status of HiGHS


def joint_milp(
    steps: Sequence[Step], importance: Sequence[float], budget_bytes: int, *, time_price: float, seconds: float = 60
) -> Optimum:
    """The best share of the largest objective minus the price of time; every step has `seconds`.

    Something has to be inserted; the objective is minus infinity where nothing can be.
    """
    found = [_one_step(step, importance, budget_bytes, time_price, seconds) for step in steps]
    best = max(found, key=lambda one: one.objective)
    return Optimum(best.objective, max(one.bound for one in found), best.ranks)


def _one_step(
    step: Step, importance: Sequence[float], budget_bytes: int, time_price: float, seconds: float
) -> Optimum:
    profile, ranks = step.profile, np.array(ANY.ranks)
    n, r, b = len(profile.locations), len(ranks), len(profile.recomputable)
    s = len(profile.storages) + b
    h = np.array([rank_gain(int(rank), int(ranks[-1])) for rank in ranks])
    worth = np.outer(np.array(importance) / np.sum(importance), h).ravel()
    costs = -time_price * np.array(step.block_time)
    solution = optimize.milp(
        -np.concatenate([worth, np.zeros(2 * s), costs, np.zeros(n * r)]),
        integrality=np.repeat([1, 0, 1, 0], [n * r, 2 * s, b, n * r]),
        bounds=optimize.Bounds(0, 1),
        constraints=[*_rows(profile, r), _bytes(profile, ranks, budget_bytes - profile.bytes([0] * n))],
        options={"mip_rel_gap": GAP, "time_limit": seconds},
    )
    base = -time_price * step.time
    if solution.x is None:
        return Optimum(-np.inf, -np.inf if solution.status == INFEASIBLE else np.inf, (0,) * n)
    chosen = solution.x[: n * r].reshape(n, r).round().astype(int) @ ranks
    return Optimum(base - solution.fun, base - solution.mip_dual_bound, tuple(chosen.tolist()))


def _bytes(profile: MemoryProfile, ranks: np.ndarray, free_bytes: int) -> optimize.LinearConstraint:
    own_bytes = np.array(profile.fixed_bytes)[:, None] + np.outer(profile.rank_bytes, ranks)
    stored = [s.bytes for s in profile.storages] + [block.input_bytes for block in profile.recomputable]
    unpriced = (np.zeros(len(stored)), np.zeros(len(profile.recomputable)))
    spared = -np.outer(profile.kept_rank_bytes, ranks).ravel()
    size = np.concatenate([own_bytes.ravel(), unpriced[0], stored, unpriced[1], spared])
    return optimize.LinearConstraint(size[None] / 1e6, -np.inf, free_bytes / 1e6)


def _rows(profile: MemoryProfile, r: int) -> list[optimize.LinearConstraint]:
    """All but the budget; the columns are x, wanted, kept, c and spared."""
    inputs = [Storage(block.input_bytes, tuple(range(block.last + 1))) for block in profile.recomputable]
    everything = replace(profile, storages=(*profile.storages, *inputs))
    n, s, b = len(profile.locations), len(everything.storages), len(inputs)
    widths = (n * r, s, s, b, n * r)
    x, wanted, kept, c, spared = (
        sparse.hstack([sparse.eye(w) if i == j else sparse.csr_matrix((w, v)) for j, v in enumerate(widths)]).tocsr()
        for i, w in enumerate(widths)
    )
    by_location = sparse.kron(sparse.eye(n), np.ones((1, r)))
    inserted = (by_location @ x).tocsr()
    readers, within = nested(everything)
    (k, of), (inner, outer) = np.array(readers).T, np.array(within).reshape(-1, 2).T
    sparing, limit = np.zeros((s, b)), np.zeros(s)  # of c in wanted - kept + sparing @ c <= limit
    for i, storage in enumerate(profile.storages):
        if storage.block is not None:
            sparing[i, storage.block] = -1
    sparing[s - b :], limit[s - b :] = np.eye(b), 1
    inside = np.zeros((n, b))
    for i, block in enumerate(profile.recomputable):
        inside[block.first : block.last + 1, i] = 1
    return [
        optimize.LinearConstraint(inserted, 0, 1),
        optimize.LinearConstraint(inserted.sum(axis=0), 1, np.inf),
        optimize.LinearConstraint(inserted[k] - wanted[of], -np.inf, 0),
        optimize.LinearConstraint(wanted[inner] - wanted[outer], -np.inf, 0),
        optimize.LinearConstraint(wanted - kept + sparse.csr_matrix(sparing) @ c, -np.inf, limit),
        optimize.LinearConstraint(spared - x, -np.inf, 0),
        optimize.LinearConstraint(by_location @ spared - sparse.csr_matrix(inside) @ c, -np.inf, 0),
    ]
