"""A second bound, on trained parameters: a price per parameter is raised until the plan obeys (Lagrange).

At the right price the search in bytes alone finds what both bounds together allow, up to a few locations' worth; what
is then left of either bound is spent greedily.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

from taskit.scheduler.leftover import spend_leftover
from taskit.scheduler.options import Option, Problem

HALVINGS = 14  # of the interval that the price lies in
Search = Callable[[list[list[Option]], Sequence[int]], list[list[int] | None]]


def bounded_plans(problem: Problem, rooms: Sequence[int], search: Search) -> list[list[int] | None]:
    """Return the best ranks found, one list per room, within `problem.max_parameters`.

    `search` solves given options at given rooms without the bound. A room whose free optimum obeys keeps it.
    """
    limit, options = problem.max_parameters, problem.options()
    assert limit is not None
    plans = search(options, rooms)
    bound = [r for r, plan in enumerate(plans) if plan is not None and problem.parameters_of(plan) > limit]
    best = dict.fromkeys(bound, problem.least_ranks)
    cheap = dict.fromkeys(bound, 0.0)  # a price at which the plan disobeys
    dear = dict.fromkeys(bound, float((problem.values / problem.parameters).max()) * 2)
    for _ in range(HALVINGS):
        rooms_at = defaultdict(list)
        for r in bound:
            rooms_at[(cheap[r] + dear[r]) / 2].append(r)
        for price, indices in rooms_at.items():
            found = search(problem.options(price), [rooms[r] for r in indices])
            for r, plan in zip(indices, found, strict=True):
                if plan is None or problem.parameters_of(plan) > limit:
                    cheap[r] = price
                    continue
                dear[r] = price
                filled = spend_leftover(plan, rooms[r], problem, options)
                best[r] = max(best[r], filled, key=problem.value_of)
    for r in bound:
        plans[r] = best[r]
    return plans
