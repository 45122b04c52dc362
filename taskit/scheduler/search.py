"""The scheduler: maximise sum_k h(r_k) * lambda_k subject to M(s) <= M_B (TaskIT, Algorithm 1).

Algorithm 1 as printed overspends its budget; this is the same problem solved over the exact union of activations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskit.memory.profile import MemoryProfile
from taskit.scheduler.constraints import ANY, Constraints
from taskit.scheduler.gain import objective
from taskit.scheduler.problem import build_problem, check_budget, limits_of
from taskit.scheduler.solvers import best_plans, common_rank_plans, default_bins


@dataclass(frozen=True, slots=True)
class Schedule:
    """A strategy s: one rank per location (0 = not inserted), its objective and M(s) in bytes.

    `shortfall_bytes` is what the budget lacks for the cheapest insertion where nothing is inserted, else 0.
    """

    ranks: tuple[int, ...]
    objective: float
    predicted_bytes: int
    shortfall_bytes: int = 0

    @property
    def value(self) -> float:
        """What the search maximises."""
        return self.objective


def schedule(
    profile: MemoryProfile,
    importance: Sequence[float],
    budget_bytes: int,
    *,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
    rank_parameters: Sequence[int] | None = None,
    rank_limits: Sequence[int] | None = None,
    bins: int | None = None,
) -> Schedule:
    """Return the most valuable strategy whose predicted peak is at most `budget_bytes`.

    Args:
        profile: bytes of every strategy over |K| locations.
        importance: lambda of shape (|K|,); only ratios matter, and a location with 0 is never inserted unforced.
        budget_bytes: M_B, the whole peak: frozen base, modules, activations and transients.
        constraints: what else the strategy has to obey.
        gain: the form of h, see `rank_gain`.
        rank_parameters: trained parameters of each location per unit of rank, for `constraints.max_parameters`.
        rank_limits: the largest rank of R that each location may get, None for all; the smallest of R always may be.
            h stays relative to the largest rank of R. With one rank for all, locations that do not admit it are left
            out.
        bins: U, the resolution over the bytes between no update and the largest strategy; None for the default.

    Raises:
        PlanError: importance or constraints make no sense for this profile.
        BudgetError: the budget is below what the frozen base and the locations forced in need.

    >>> profile = MemoryProfile(("q",), (0,), 100, (10,), (0,), (), 0)
    >>> schedule(profile, [1.0], 150).ranks
    (4,)
    """
    return frontier(
        profile,
        importance,
        (budget_bytes,),
        constraints=constraints,
        gain=gain,
        rank_parameters=rank_parameters,
        rank_limits=rank_limits,
        bins=bins,
    )[0]


def frontier(
    profile: MemoryProfile,
    importance: Sequence[float],
    budgets: Sequence[int],
    *,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
    rank_parameters: Sequence[int] | None = None,
    rank_limits: Sequence[int] | None = None,
    bins: int | None = None,
) -> tuple[Schedule, ...]:
    """Return `schedule` at every one of `budgets` (bytes), from one table; arguments and errors are the same."""
    problem = build_problem(profile, importance, constraints, gain, rank_parameters, rank_limits)
    if not budgets:
        return ()
    check_budget(profile, constraints, min(budgets))
    base = profile.bytes([0] * len(profile.locations))
    free_bytes = [budget - base for budget in budgets]
    solve = common_rank_plans if constraints.common_rank else best_plans
    whole = np.zeros((len(budgets), len(profile.locations)), np.int64)
    plans = solve(problem, free_bytes, bins or default_bins(problem))
    whole[:, problem.locations] = [plan or problem.least_plan for plan in plans]
    cheapest = 0 if whole.any(axis=1).all() else problem.bytes_of(problem.cheapest_insertion)
    found = []
    for ranks, free in zip(whole.tolist(), free_bytes, strict=True):
        value = objective(ranks, importance, constraints.ranks[-1], gain)
        missing = 0 if any(ranks) else cheapest - free
        found.append(Schedule(tuple(ranks), value, profile.bytes(ranks), missing))
    return tuple(found)


def schedule_uniform(
    profile: MemoryProfile,
    importance: Sequence[float],
    budget_bytes: int,
    *,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
    rank_parameters: Sequence[int] | None = None,
    rank_limits: Sequence[int] | None = None,
) -> Schedule:
    """Return one rank at every location which the constraints admit: the largest that fits the budget.

    The usual choice, and a baseline of `schedule`: arguments and errors are the same, but importance only counts in
    the objective. A location whose limit is lower gets the largest rank that it admits. Where not even the lowest
    rank fits everywhere, nothing is inserted.
    """
    check_budget(profile, constraints, budget_bytes)
    found = constraints.candidates(profile.locations, profile.blocks)
    limits = limits_of(profile, constraints, rank_limits)
    tried = [
        [0 if one.barred else min(rank, limit) for one, limit in zip(found, limits, strict=True)]
        for rank in constraints.ranks
    ]
    most, costs = constraints.max_parameters, rank_parameters or [0] * len(found)
    ranks = list(constraints.least_ranks(profile.locations, profile.blocks))
    for plan in tried:
        trained = sum(rank * cost for rank, cost in zip(plan, costs, strict=True))
        if profile.bytes(plan) <= budget_bytes and (most is None or trained <= most):
            ranks = plan
    missing = 0 if any(ranks) else max(0, profile.bytes(tried[0]) - budget_bytes)
    value = objective(ranks, importance, constraints.ranks[-1], gain)
    return Schedule(tuple(ranks), value, profile.bytes(ranks), missing)
