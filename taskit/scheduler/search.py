"""The scheduler: maximise sum_k h(r_k) * lambda_k subject to M(s) <= M_B (TaskIT, §1.1 step 7 of methods.md).

Algorithm 1 as printed overspends its budget; this is the same problem solved over the exact union of activations.
Small problems are solved exactly with Pareto lists, the others with bins fine enough that nothing visible is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from taskit.memory.profile import MemoryProfile
from taskit.scheduler.bins import binned_plans
from taskit.scheduler.bounded import bounded_plans
from taskit.scheduler.constraints import ANY, Constraints
from taskit.scheduler.gain import objective
from taskit.scheduler.leftover import spend_leftover
from taskit.scheduler.options import Option, Problem
from taskit.scheduler.pareto import pareto_plans
from taskit.scheduler.pose import check_budget, pose
from taskit.scheduler.trellis import build_trellis

EXACT_LOCATIONS = 24  # up to here Pareto lists are tried before the bins
BINS_PER_LOCATION = 200  # U grows with the locations; the paper's 500 in all lose 5 to 14 % of the objective
MOST_CELLS = 30_000_000  # bins times locations: keeps the table below 100 MB


@dataclass(frozen=True, slots=True)
class Schedule:
    """A strategy s: one rank per location (0 = not inserted), its objective and M(s) in bytes.

    `shortfall_bytes` is what the budget lacks for the cheapest insertion where nothing is inserted, else 0.
    """

    ranks: tuple[int, ...]
    objective: float
    predicted_bytes: int
    shortfall_bytes: int = 0


def schedule(
    profile: MemoryProfile,
    importance: Sequence[float],
    budget_bytes: int,
    *,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
    rank_parameters: Sequence[int] | None = None,
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
    bins: int | None = None,
) -> tuple[Schedule, ...]:
    """Return `schedule` at every one of `budgets` (bytes), from one table; arguments and errors are the same."""
    problem = pose(profile, importance, constraints, gain, rank_parameters)
    if not budgets:
        return ()
    check_budget(profile, constraints, min(budgets))
    base = profile.bytes([0] * len(profile.locations))
    rooms = [budget - base for budget in budgets]
    solve = _common_rank_plans if constraints.common_rank else _plans
    whole = np.zeros((len(rooms), len(profile.locations)), np.int64)
    bins = bins or min(BINS_PER_LOCATION * len(problem.places), MOST_CELLS // len(problem.places))
    whole[:, problem.places] = [plan or problem.least_ranks for plan in solve(problem, rooms, bins)]
    found = []
    for ranks, room in zip(whole.tolist(), rooms, strict=True):
        value = objective(ranks, importance, constraints.ranks[-1], gain)
        missing = 0 if any(ranks) else problem.bytes_of(problem.cheapest_insertion) - room
        found.append(Schedule(tuple(ranks), value, profile.bytes(ranks), missing))
    return tuple(found)


def _common_rank_plans(problem: Problem, rooms: Sequence[int], bins: int) -> list[list[int] | None]:
    """The best over R of the plans that know one rank only; ties go to the lower rank."""
    best: list[list[int] | None] = [None] * len(rooms)
    for j in range(len(problem.ranks)):
        columns = {part: getattr(problem, part)[:, [j]] for part in ("bytes", "parameters", "values")}
        found = _plans(replace(problem, ranks=problem.ranks[[j]], **columns), rooms, bins)
        best = [
            max((one for one in pair if one is not None), key=problem.value_of, default=None)
            for pair in zip(best, found, strict=True)
        ]
    return best


def _plans(problem: Problem, rooms: Sequence[int], bins: int) -> list[list[int] | None]:
    """Return one list of ranks per room (budget bytes above the frozen base), or None where nothing is allowed."""
    limit = problem.max_parameters
    if limit is not None and problem.parameters_of(problem.least_ranks) > limit:
        return [None] * len(rooms)
    plans = _exact_plans(problem, rooms)
    if plans is None:

        def search(options: list[list[Option]], some_rooms: Sequence[int]) -> list[list[int] | None]:
            return _binned_plans(problem, options, some_rooms, bins)

        plans = search(problem.options(), rooms) if limit is None else bounded_plans(problem, rooms, search)
    return plans


def _exact_plans(problem: Problem, rooms: Sequence[int]) -> list[list[int] | None] | None:
    if len(problem.places) > EXACT_LOCATIONS:
        return None
    trellis = build_trellis(problem.needs, problem.sizes, problem.options())
    return pareto_plans(trellis, rooms, problem.max_parameters) if trellis.exact else None


def _binned_plans(
    problem: Problem, options: list[list[Option]], rooms: Sequence[int], bins: int
) -> list[list[int] | None]:
    always = problem.needs.all(axis=0)  # whatever is inserted keeps these, so no bin is spent on them
    common = int(problem.sizes[always].sum())
    trellis = build_trellis(problem.needs[:, ~always], problem.sizes[~always], options)
    plans = binned_plans(trellis, [max(0, room - common) for room in rooms], problem.span_bytes - common, bins)
    least = problem.least_ranks
    for b, room in enumerate(rooms):
        if plans[b] is None or room < common:  # least may fit exactly, but be rounded beyond the room
            plans[b] = least if problem.bytes_of(least) <= room else None
        plan = plans[b]
        if plan is not None and not trellis.exact:
            plans[b] = spend_leftover(plan, room, problem, options)
    return plans
