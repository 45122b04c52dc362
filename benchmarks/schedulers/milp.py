"""The scheduler's problem as a mixed-integer program, solved by HiGHS: an oracle with a proof.

Numbers x[k, r] say which rank location k gets, y[s] <= 1 whether storage s is kept: sum_r x[k, r] <= y[s] where k
needs s. Most of these rows follow from y[t] <= y[s] for the largest storage t whose readers all read s too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse

from taskit.memory.profile import MemoryProfile
from taskit.scheduler import ANY, Constraints, rank_gain

GAP = 1e-4  # relative, at which HiGHS stops


@dataclass(frozen=True, slots=True)
class Optimum:
    """Objective of the best strategy that HiGHS found, and the bound that it proved no strategy exceeds."""

    objective: float
    bound: float
    ranks: tuple[int, ...]


def milp(
    profile: MemoryProfile,
    importance: Sequence[float],
    budget_bytes: int,
    *,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
    rank_parameters: Sequence[int] | None = None,
    seconds: float = 60,
) -> Optimum:
    """Solve without any code of the product's search; one rank for all is not modelled."""
    ranks = constraints.ranks
    n, r, s = len(profile.locations), len(ranks), len(profile.storages)
    h = np.array([rank_gain(rank, ranks[-1], gain) for rank in ranks])
    own_bytes = np.array(profile.fixed_bytes)[:, None] + np.outer(profile.rank_bytes, ranks)
    size = np.concatenate([own_bytes.ravel(), [storage.bytes for storage in profile.storages]]) / 1e6
    inserted = sparse.hstack([sparse.kron(sparse.eye(n), np.ones((1, r))), sparse.csr_matrix((n, s))]).tocsr()
    kept = sparse.hstack([sparse.csr_matrix((s, n * r)), sparse.eye(s)]).tocsr()
    readers, within = nested(profile)
    (k, of), (inner, outer) = np.array(readers).T, np.array(within).reshape(-1, 2).T
    least, most = _insertions(profile, constraints)
    rows = [
        optimize.LinearConstraint(size[None], -np.inf, (budget_bytes - profile.bytes([0] * n)) / 1e6),
        optimize.LinearConstraint(inserted, least, most),
        optimize.LinearConstraint(inserted[k] - kept[of], -np.inf, 0),
        optimize.LinearConstraint(kept[inner] - kept[outer], -np.inf, 0),
    ]
    if constraints.max_parameters is not None:
        trained = np.concatenate([np.outer(rank_parameters, ranks).ravel(), np.zeros(s)])
        rows.append(optimize.LinearConstraint(trained[None], -np.inf, constraints.max_parameters))
    solution = optimize.milp(
        -np.concatenate([np.outer(importance, h).ravel(), np.zeros(s)]),
        integrality=np.repeat([1, 0], [n * r, s]),
        bounds=optimize.Bounds(0, 1),
        constraints=rows,
        options={"mip_rel_gap": GAP, "time_limit": seconds},
    )
    if solution.x is None:
        return Optimum(0.0, np.inf, (0,) * n)
    chosen = solution.x[: n * r].reshape(n, r).round().astype(int) @ np.array(ranks)
    return Optimum(-solution.fun, -solution.mip_dual_bound, tuple(chosen.tolist()))


def _insertions(profile: MemoryProfile, constraints: Constraints) -> tuple[np.ndarray, np.ndarray]:
    """How often each location has to and may be inserted, 0 or 1."""
    found = constraints.candidates(profile.locations, profile.blocks)
    return np.array([float(bool(one.forced_by)) for one in found]), np.array([float(not one.barred) for one in found])


def nested(profile: MemoryProfile) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(location, storage) and (inner storage, outer storage) pairs from which all needs follow."""
    masks = [sum(1 << k for k in storage.needed_by) for storage in profile.storages]
    order = sorted(range(len(masks)), key=lambda j: masks[j].bit_count())
    readers, within = [], []
    for position, outer in enumerate(order):
        inner = next((i for i in reversed(order[:position]) if masks[i] & ~masks[outer] == 0), None)
        rest = masks[outer] if inner is None else masks[outer] & ~masks[inner]
        within += [] if inner is None else [(inner, outer)]
        readers += [(k, outer) for k in range(len(profile.locations)) if rest >> k & 1]
    return readers, within
