"""Which search solves a problem.

Up to `EXACT_LOCATIONS` locations Pareto lists give the exact optimum, unless they grow too long. All other problems
are solved in bins fine enough that nothing visible is lost. A bound on trained parameters, which bins do not count,
becomes a price for each parameter. What an inexact search leaves over is spent greedily.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from taskit.scheduler.bins import binned_plans
from taskit.scheduler.options import SKIP, Option, rank_options
from taskit.scheduler.pareto import pareto_plans
from taskit.scheduler.problem import Problem
from taskit.scheduler.trellis import Trellis, build_trellis

BINS_PER_LOCATION = 200  # U grows with the locations; the paper's 500 in all lose 5 to 14 % of the objective
JOINT_BINS_PER_LOCATION = 60  # where blocks are decided too: twice the states, but no bin above the largest budget
FEWEST_JOINT_BINS = 12_000
MOST_CELLS = 30_000_000  # bins times locations: keeps the table below 100 MB
EXACT_LOCATIONS = 24  # up to here Pareto lists are tried before the bins
BY_RANK = ("bytes", "spared", "parameters", "admitted", "values")  # the fields of a problem with a column per rank
HALVINGS = 14  # of the interval that the price of a parameter lies in


def default_bins(problem: Problem) -> int:
    n = len(problem.locations)
    bins = max(JOINT_BINS_PER_LOCATION * n, FEWEST_JOINT_BINS) if problem.blocks else BINS_PER_LOCATION * n
    return min(bins, MOST_CELLS // n)


def common_rank_plans(problem: Problem, free_bytes: Sequence[int], bins: int) -> list[list[int] | None]:
    """Like `best_plans` among the plans that give all inserted locations one rank; ties go to the lower rank."""
    best: list[list[int] | None] = [None] * len(free_bytes)
    for j in range(len(problem.ranks)):
        if not problem.admitted[problem.forced, j].all():
            continue
        columns = {part: getattr(problem, part)[:, [j]] for part in BY_RANK}
        found = best_plans(replace(problem, ranks=problem.ranks[[j]], **columns), free_bytes, bins)
        best = [
            max((one for one in pair if one is not None), key=problem.value_of, default=None)
            for pair in zip(best, found, strict=True)
        ]
    return best


def best_plans(problem: Problem, free_bytes: Sequence[int], bins: int) -> list[list[int] | None]:
    """Return plans, one per entry of `free_bytes` (budget above the frozen base), or None where none is allowed.

    `bins` is the resolution of the search in bins, U in the paper.
    """
    limit = problem.max_parameters
    if limit is not None and problem.parameters_of(problem.least_plan) > limit:
        return [None] * len(free_bytes)
    plans = _exact_plans(problem, free_bytes)
    if plans is not None:
        return plans
    if limit is None:
        return _binned_plans(problem, rank_options(problem), free_bytes, bins)
    return _bounded_plans(problem, limit, free_bytes, bins)


def _exact_plans(problem: Problem, free_bytes: Sequence[int]) -> list[list[int] | None] | None:
    if len(problem.locations) > EXACT_LOCATIONS:
        return None
    trellis = trellis_of(problem, rank_options(problem))
    plans = pareto_plans(trellis, free_bytes, problem.max_parameters) if trellis.exact else None
    return None if plans is None else [_by_entry(trellis, plan) for plan in plans]


def trellis_of(problem: Problem, options: list[list[Option]]) -> Trellis:
    return build_trellis(problem.needs, problem.sizes, options, problem.home, problem.inputs, problem.blocks)


def _by_entry(trellis: Trellis, plan: list[int] | None) -> list[int] | None:
    """Bring the choices of a path, one per layer, in the order of a plan."""
    return None if plan is None else [plan[layer] for layer in np.argsort(trellis.entries)]


def _binned_plans(
    problem: Problem, options: list[list[Option]], free_bytes: Sequence[int], bins: int
) -> list[list[int] | None]:
    """Solve in bins, without the bound on parameters, and spend the bytes that merged states were priced too high."""
    always = problem.needs.all(axis=0) & (
        problem.home < 0
    )  # whatever is inserted keeps these: no bin is spent on them
    common = int(problem.sizes[always].sum())
    parts = {part: getattr(problem, part)[..., ~always] for part in ("needs", "sizes", "home", "inputs")}
    trellis = trellis_of(replace(problem, **parts), options)
    span, left = problem.span_bytes - common, [max(0, free - common) for free in free_bytes]
    if problem.blocks:  # what recomputing frees may be a small part of the span: halve the bins until they fill it
        bins <<= (span // (max(left) + 1)).bit_length() - 1 if span > max(left) else 0
    found = binned_plans(trellis, left, span, bins)
    plans = [_by_entry(trellis, plan) for plan in found]
    least = problem.least_plan
    for b, free in enumerate(free_bytes):
        if plans[b] is None or free < common:  # least may fit exactly, but be rounded up beyond the budget
            plans[b] = least if problem.bytes_of(least) <= free else None
        plan = plans[b]
        if plan is not None and not trellis.exact:
            plans[b] = spend_leftover(_keep_blocks(plan, free, problem), free, problem, options)
    return plans


def _keep_blocks(plan: list[int], free_bytes: int, problem: Problem) -> list[int]:
    """Keep the blocks that need not be recomputed for `plan` to fit, those that take most time first."""
    n = len(problem.locations)
    for b in sorted(range(len(problem.blocks)), key=lambda b: -problem.blocks[b].time):
        kept = [*plan[: n + b], 0, *plan[n + b + 1 :]]
        if problem.bytes_of(kept) <= free_bytes:
            plan = kept
    return plan


def _bounded_plans(problem: Problem, limit: int, free_bytes: Sequence[int], bins: int) -> list[list[int] | None]:
    """Return the best ranks found with at most `limit` parameters, by a price per parameter (Lagrange).

    A plan that obeys without a price is kept. For the others bisection finds the lowest price at which they obey:
    there the search in bytes alone finds what both bounds together allow, up to a few locations' worth. What is then
    left of either bound is spent greedily.
    """
    options = rank_options(problem)
    plans = _binned_plans(problem, options, free_bytes, bins)
    bound = [b for b, plan in enumerate(plans) if plan is not None and problem.parameters_of(plan) > limit]
    best = dict.fromkeys(bound, problem.least_plan)
    cheap = dict.fromkeys(bound, 0.0)  # a price at which the plan disobeys
    dear = dict.fromkeys(bound, float((problem.values / problem.parameters).max()) * 2)
    for _ in range(HALVINGS):
        at_price = defaultdict(list)
        for b in bound:
            at_price[(cheap[b] + dear[b]) / 2].append(b)
        for price, budgets in at_price.items():
            found = _binned_plans(problem, rank_options(problem, price), [free_bytes[b] for b in budgets], bins)
            for b, plan in zip(budgets, found, strict=True):
                if plan is None or problem.parameters_of(plan) > limit:
                    cheap[b] = price
                    continue
                dear[b] = price
                filled = spend_leftover(plan, free_bytes[b], problem, options)
                best[b] = max(best[b], filled, key=problem.value_of)
    for b in bound:
        plans[b] = best[b]
    return plans


def spend_leftover(
    plan: Sequence[int], free_bytes: int, problem: Problem, options: Sequence[Sequence[Option]]
) -> list[int]:
    """Raise ranks, or insert locations, as long as anything fits that `plan` leaves over; return the plan.

    Each time the step of the largest gain is taken, relative to its share of the bytes or parameters that are left.
    `free_bytes` are counted above the empty strategy and priced over the exact union. `options` are the
    problem's; ties go to the later location and the lower rank.
    """
    blocks = list(plan[len(problem.locations) :])
    stored, inside = problem.kept_by(plan)
    needs, sizes = problem.needs[:, stored], problem.sizes[stored]
    if blocks:
        options = [
            [replace(option, bytes=option.bytes - bit * option.spared) for option in choices]
            for choices, bit in zip(options[: len(inside)], inside.tolist(), strict=True)
        ]
    held = [next((o for o in choices if o.rank == r), SKIP) for r, choices in zip(plan, options, strict=False)]
    limit = problem.max_parameters
    while True:
        inserted = np.array([option.rank > 0 for option in held])
        kept = needs[inserted].any(axis=0)
        left = free_bytes - sum(option.bytes for option in held) - int(sizes[kept].sum())
        spare = None if limit is None else limit - sum(option.parameters for option in held)
        unpaid = ((needs & ~kept) @ sizes).tolist()
        raises = [
            ((option.gain - now.gain) / max(1e-9, share), k, -option.rank, option)
            for k, (now, choices) in enumerate(zip(held, options, strict=True))
            for option in choices
            if option.gain > now.gain and (share := _share(option, now, unpaid[k], left, spare)) <= 1
        ]
        if not raises:
            return [*(option.rank for option in held), *blocks]
        _, k, _, option = max(raises, key=lambda candidate: candidate[:3])
        held[k] = option


def _share(option: Option, now: Option, unpaid: int, left: int, spare: int | None) -> float:
    """Return which part of what is left, bytes or parameters, the step takes at most; 2 if it does not fit."""
    size, parameters = option.bytes - now.bytes + unpaid, option.parameters - now.parameters
    if size > left or (spare is not None and parameters > spare):
        return 2.0
    return max(size / max(1, left), 0.0 if spare is None else parameters / max(1, spare))
