"""The usual choice: one rank at every location, the largest that fits."""

from collections.abc import Sequence

from taskit.memory.profile import MemoryProfile
from taskit.scheduler.constraints import ANY, Constraints
from taskit.scheduler.gain import objective
from taskit.scheduler.pose import check_budget
from taskit.scheduler.search import Schedule


def schedule_uniform(
    profile: MemoryProfile,
    importance: Sequence[float],
    budget_bytes: int,
    *,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
    rank_parameters: Sequence[int] | None = None,
) -> Schedule:
    """Return the largest rank that every location which the constraints admit can get inside the budget.

    Arguments and errors as of `schedule`, which this is a baseline of; importance only counts in the objective. Where
    not even the lowest rank fits everywhere, nothing is inserted.
    """
    check_budget(profile, constraints, budget_bytes)
    found = constraints.candidates(profile.locations, profile.blocks)
    tried = [[0 if one.barred else rank for one in found] for rank in constraints.ranks]
    most, costs = constraints.max_parameters, rank_parameters or [0] * len(found)
    ranks = list(constraints.least_ranks(profile.locations, profile.blocks))
    for plan in tried:
        trained = sum(rank * cost for rank, cost in zip(plan, costs, strict=True))
        if profile.bytes(plan) <= budget_bytes and (most is None or trained <= most):
            ranks = plan
    missing = 0 if any(ranks) else max(0, profile.bytes(tried[0]) - budget_bytes)
    value = objective(ranks, importance, constraints.ranks[-1], gain)
    return Schedule(tuple(ranks), value, profile.bytes(ranks), missing)
