"""The scheduler's problem as a mixed-integer program, solved by HiGHS: an oracle with a proof.

Numbers x[k, r] say which rank location k gets, y[s] <= 1 whether storage s is kept: sum_r x[k, r] <= y[s] where k
needs s. Most of these rows follow from y[t] <= y[s] for the largest storage t whose readers all read s too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse

from taskit.memory.profile import MemoryProfile
from taskit.scheduler import ANY, Constraints, Step, rank_gain

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
    readers, within = _nested(profile)
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


def joint_milp(
    steps: Sequence[Step],
    importance: Sequence[float],
    budget_bytes: int,
    *,
    time_price: float,
    seconds: float = 60,
) -> Optimum:
    """The joint problem, one program per step: the share of the largest objective minus the price of time.

    `seconds` is the limit for each step. A step that can insert nothing is left out.
    """
    found = [_joint_step(step, importance, budget_bytes, time_price, seconds) for step in steps]
    best = max(found, key=lambda one: one.objective)
    return Optimum(best.objective, max(one.bound for one in found), best.ranks)


def _joint_step(
    step: Step, importance: Sequence[float], budget_bytes: int, time_price: float, seconds: float
) -> Optimum:
    """x[k, r] and y[s] as above; c[b] for recomputed, z[b] >= c[b] - (1 - anything up to b) for its input.

    y[s] is needed only where c is 0: y[s] >= inserted[k] - c[b]. What a recomputed block spares of x[k, r] is
    w[k, r] <= x[k, r], w[k, r] <= c[b].
    """
    profile = step.profile
    ranks, n = np.array(ANY.ranks), len(profile.locations)
    r, s, b = len(ranks), len(profile.storages), len(profile.recomputable)
    h = np.array([rank_gain(int(rank), int(ranks[-1])) for rank in ranks])
    start = dict(zip("xycvw", np.cumsum([0, n * r, s, b, b]), strict=True))
    width = 2 * n * r + s + 2 * b  # v[b]: the input is kept
    rows: list[tuple[dict[int, float], float, float]] = []  # coefficients, at least, at most
    for k in range(n):
        rows.append(({k * r + j: 1.0 for j in range(r)}, 0, 1))
    rows.append((dict.fromkeys(range(n * r), 1.0), 1, np.inf))
    for i, storage in enumerate(profile.storages):
        for k in storage.needed_by:
            row = {k * r + j: 1.0 for j in range(r)} | {start["y"] + i: -1.0}
            rows.append((row if storage.block is None else row | {start["c"] + storage.block: -1.0}, -np.inf, 0))
    for i, block in enumerate(profile.recomputable):
        for k in range(block.last + 1):
            row = {k * r + j: 1.0 for j in range(r)} | {start["c"] + i: 1.0, start["v"] + i: -1.0}
            rows.append((row, -np.inf, 1))
        for k in range(block.first, block.last + 1):
            # one spared share for each location: w[k, r] <= x[k, r], the sum of them <= c
            rows.append(({start["w"] + k * r + j: 1.0 for j in range(r)} | {start["c"] + i: -1.0}, -np.inf, 0))
            rows += [({start["w"] + k * r + j: 1.0, k * r + j: -1.0}, -np.inf, 0) for j in range(r)]
    inside = {k for block in profile.recomputable for k in range(block.first, block.last + 1)}
    size = np.zeros(width)
    size[: n * r] = (np.array(profile.fixed_bytes)[:, None] + np.outer(profile.rank_bytes, ranks)).ravel()
    size[start["y"] : start["c"]] = [storage.bytes for storage in profile.storages]
    size[start["v"] : start["w"]] = [block.input_bytes for block in profile.recomputable]
    size[start["w"] :] = -np.outer(profile.kept_rank_bytes, ranks).ravel()
    matrix = sparse.lil_matrix((len(rows), width))
    for i, (row, _, _) in enumerate(rows):
        matrix[i, list(row)] = list(row.values())
    free = budget_bytes - profile.bytes([0] * n)
    worth = np.zeros(width)
    worth[: n * r] = np.outer(importance, h).ravel() / np.sum(importance)
    worth[start["c"] : start["v"]] = -time_price * np.array(step.block_time)
    upper = np.ones(width)
    upper[start["w"] :] = np.repeat([float(k in inside) for k in range(n)], r)
    integral = np.zeros(width)
    integral[: n * r] = integral[start["c"] : start["v"]] = 1
    solution = optimize.milp(
        -worth,
        integrality=integral,
        bounds=optimize.Bounds(0, upper),
        constraints=[
            optimize.LinearConstraint(size[None] / 1e6, -np.inf, free / 1e6),
            optimize.LinearConstraint(matrix.tocsr(), [low for _, low, _ in rows], [high for *_, high in rows]),
        ],
        options={"mip_rel_gap": GAP, "time_limit": seconds},
    )
    base = -time_price * step.time
    if solution.x is None:
        return Optimum(-np.inf, -np.inf if solution.status == 2 else np.inf, (0,) * n)
    chosen = solution.x[: n * r].reshape(n, r).round().astype(int) @ ranks
    return Optimum(base - solution.fun, base - solution.mip_dual_bound, tuple(chosen.tolist()))


def _insertions(profile: MemoryProfile, constraints: Constraints) -> tuple[np.ndarray, np.ndarray]:
    """How often each location has to and may be inserted, 0 or 1."""
    found = constraints.candidates(profile.locations, profile.blocks)
    return np.array([float(bool(one.forced_by)) for one in found]), np.array([float(not one.barred) for one in found])


def _nested(profile: MemoryProfile) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
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
