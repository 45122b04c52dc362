"""The scheduler's problem as a mixed-integer program, solved by HiGHS: an oracle with a proof.

Numbers x[k, r] say which rank location k gets, y[s] <= 1 whether storage s is kept, x[k, r] <= y[s] where k needs s.
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
    own = np.array(profile.fixed_bytes)[:, None] + np.outer(profile.rank_bytes, ranks)
    size = np.concatenate([own.ravel(), [storage.bytes for storage in profile.storages]]) / 1e6
    inserted = sparse.hstack([sparse.kron(sparse.eye(n), np.ones((1, r))), sparse.csr_matrix((n, s))]).tocsr()
    k, j = np.array([(k, j) for j, storage in enumerate(profile.storages) for k in storage.needed_by]).T
    pick = sparse.csr_matrix((np.ones(len(k)), (range(len(k)), n * r + j)), (len(k), n * r + s))
    candidates = constraints.candidates(profile.locations, profile.blocks)
    least = np.array([float(bool(one.forced_by)) for one in candidates])
    most = np.array([0.0 if one.barred else 1.0 for one in candidates])
    rows = [
        optimize.LinearConstraint(size[None], -np.inf, (budget_bytes - profile.bytes([0] * n)) / 1e6),
        optimize.LinearConstraint(inserted, least, most),
        optimize.LinearConstraint(inserted[k] - pick, -np.inf, 0),
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
