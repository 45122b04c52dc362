"""The joint search: ranks, recomputed blocks and rows at once, so that exact levers come before quality is given up.

Maximised is the share of the largest objective minus a price for the time of the step, M(s) <= M_B as ever. Inside a
way to take the step (a micro-batch), blocks and ranks fall out of one sweep (trellis.py). Among the ways, those whose
upper bound does not reach what another has found need no table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskit.errors import PlanError
from taskit.memory.profile import MemoryProfile
from taskit.scheduler.bounds import value_bounds
from taskit.scheduler.constraints import ANY, Constraints
from taskit.scheduler.gain import objective
from taskit.scheduler.options import Option, rank_options, value_unit
from taskit.scheduler.problem import Problem, build_problem, check_floor
from taskit.scheduler.search import Schedule
from taskit.scheduler.solvers import best_plans, common_rank_plans, default_bins, trellis_of

TIME_PRICE = 0.02  # of the largest objective, for the time of one step more: any exact lever before visible quality
ROUNDING = 1e-9  # of a score: more than whole quanta take off it


@dataclass(frozen=True, slots=True)
class Step:
    """One way to take the same optimizer step: so many rows at once.

    Args:
        profile: bytes of every strategy; its `recomputable` blocks are the choices, none where recomputation is named
            or impossible.
        micro_batch: rows that pass at once.
        time: of the step where nothing is recomputed, in any unit that all steps share.
        block_time: what recomputing each of `profile.recomputable` adds.

    Raises:
        PlanError: a time is missing, negative or not finite.
    """

    profile: MemoryProfile
    micro_batch: int
    time: float
    block_time: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.block_time) != len(self.profile.recomputable):
            raise PlanError(
                f"There are {len(self.block_time)} times for {len(self.profile.recomputable)} recomputable blocks; "
                "give one for each."
            )
        if not all(0 <= time < math.inf for time in (self.time, *self.block_time)):
            raise PlanError("A time of a step is negative or not finite; give times of 0 or more.")


@dataclass(frozen=True, slots=True)
class JointSchedule(Schedule):
    """A strategy and how its step is taken; its bytes are those where `recomputed` are recomputed.

    Args:
        step: index into the steps.
        recomputed: indices into that step's `profile.recomputable`, rising.
        time: of the step, what is recomputed included.
        value: what the search maximises: the share of the largest objective, minus the price of the time.
    """

    step: int = 0
    recomputed: tuple[int, ...] = ()
    time: float = 0.0
    value: float = 0.0


def joint_schedule(
    steps: Sequence[Step],
    importance: Sequence[float],
    budget_bytes: int,
    *,
    time_price: float = TIME_PRICE,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
    rank_parameters: Sequence[int] | None = None,
    rank_limits: Sequence[int] | None = None,
    bins: int | None = None,
) -> JointSchedule:
    """Return the best strategy, recomputed blocks and step whose predicted peak is at most `budget_bytes`.

    Best is the largest sum_k h(r_k) * lambda_k, in shares of the same sum with the largest rank everywhere, minus
    `time_price` times the time of the step; among equals the fastest, then the smallest. Nothing is inserted only
    where nothing can be: then step and blocks are those that the cheapest insertion needs.

    Args:
        steps: ways to take the step, over the same locations.
        time_price: shares of the largest objective that a unit of time has to earn.

    The other arguments and the errors are those of `schedule`; the budget is too low if it is for every step.
    """
    return joint_frontier(
        steps,
        importance,
        (budget_bytes,),
        time_price=time_price,
        constraints=constraints,
        gain=gain,
        rank_parameters=rank_parameters,
        rank_limits=rank_limits,
        bins=bins,
    )[0]


def joint_frontier(
    steps: Sequence[Step],
    importance: Sequence[float],
    budgets: Sequence[int],
    *,
    time_price: float = TIME_PRICE,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
    rank_parameters: Sequence[int] | None = None,
    rank_limits: Sequence[int] | None = None,
    bins: int | None = None,
) -> tuple[JointSchedule, ...]:
    """Return `joint_schedule` at every one of `budgets` (bytes), from at most one table per step.

    A larger budget never gives a worse plan here. The bins are those of the largest budget of each step, so alone a
    small budget is solved in finer ones and may score some hundredths of a per cent more.
    """
    if not steps or any(step.profile.locations != steps[0].profile.locations for step in steps):
        raise PlanError("The steps are none or disagree on the locations; give at least one, of the same backbone.")
    if not 0 <= time_price < math.inf:
        raise PlanError(f"The price of time is {time_price}; give a finite number of 0 or more.")
    ways = []
    for index, step in enumerate(steps):
        common = (step.profile, importance, constraints, gain, rank_parameters, rank_limits)
        problem = build_problem(*common, step.block_time, time_price)
        base = step.profile.bytes([0] * len(importance))
        cheapest = problem.cheapest_insertion
        needed = base + problem.bytes_of(cheapest)
        options = rank_options(problem)
        ways.append(
            _Way(index, step, problem, options, base, cheapest, needed, constraints.common_rank, time_price, bins)
        )
    if not budgets:
        return ()
    least = min(way.base + way.problem.bytes_of(way.problem.least_plan) for way in ways)
    check_floor(least, bool(ways[0].problem.forced.any()), min(budgets))
    found = []
    for plan, budget in zip(_best(ways, budgets), budgets, strict=True):
        ranks = plan.ranks
        missing = 0 if any(ranks) else plan.needed_bytes - budget
        value = objective(ranks, importance, constraints.ranks[-1], gain)
        size = plan.needed_bytes if any(ranks) else plan.way.base
        whole = (plan.way.index, plan.recomputed, plan.time, plan.score)
        found.append(JointSchedule(ranks, value, size, missing, *whole))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Found:
    """A plan of one way; `needed_bytes` is its peak, or where it inserts nothing that of the cheapest insertion."""

    way: "_Way"
    ranks: tuple[int, ...]
    recomputed: tuple[int, ...]
    score: float
    time: float
    needed_bytes: int


@dataclass(frozen=True, slots=True)
class _Way:
    """A step with its problem; peaks: `base` where nothing is inserted, `needed_bytes` of the cheapest insertion."""

    index: int
    step: Step
    problem: Problem
    options: list[list[Option]]
    base: int
    cheapest: list[int]
    needed_bytes: int
    common_rank: bool
    time_price: float
    bins: int | None

    @property
    def best_score(self) -> float:
        return 1 - self.time_price * self.step.time

    @property
    def most(self) -> float:
        """The value of the largest admitted rank everywhere."""
        return float(self.problem.values.max(axis=1).sum())

    def found(self, plan: Sequence[int], needed_bytes: int | None = None) -> _Found:
        problem, n = self.problem, len(self.problem.locations)
        chosen = [block for block, bit in zip(problem.blocks, plan[n:], strict=True) if bit]
        time = self.step.time + math.fsum(block.time for block in chosen)
        whole = np.zeros(len(self.step.profile.locations), int)
        whole[problem.locations] = plan[:n]
        return _Found(
            way=self,
            ranks=tuple(whole.tolist()),
            recomputed=tuple(block.index for block in chosen),
            score=math.fsum(problem.values[problem.inserted(plan)].tolist()) / self.most - self.time_price * time,
            time=time,
            needed_bytes=self.base + problem.bytes_of(plan) if needed_bytes is None else needed_bytes,
        )

    def largest(self) -> _Found | None:
        """The plan that no other of this way exceeds, if the constraints admit it: nothing recomputed."""
        ranks = [choices[-1].rank for choices in self.options[: len(self.problem.locations)]]
        plan = [*ranks, *(0 for _ in self.problem.blocks)]
        most = self.problem.max_parameters
        uneven = self.common_rank and len({rank for rank in ranks if rank}) > 1
        return None if uneven or (most is not None and self.problem.parameters_of(plan) > most) else self.found(plan)

    def bounds(self, budgets: Sequence[int]) -> np.ndarray:
        """What no plan's score exceeds, per budget."""
        trellis = trellis_of(self.problem, self.options)
        if not trellis.exact:
            return np.full(len(budgets), self.best_score)
        free_bytes = [budget - self.base for budget in budgets]
        unit = value_unit(self.problem, self.problem.values) / self.most
        slowest = self.step.time + math.fsum(block.time for block in self.problem.blocks)  # kept blocks are rewarded
        values = unit * value_bounds(trellis, free_bytes, self.problem.span_bytes)
        return np.minimum(values - self.time_price * slowest + ROUNDING, self.best_score)

    def plans(self, budgets: Sequence[int]) -> list[_Found]:
        """The best plan found within each budget; the cheapest insertion where none is."""
        solve = common_rank_plans if self.common_rank else best_plans
        free_bytes = [budget - self.base for budget in budgets]
        plans = solve(self.problem, free_bytes, self.bins or default_bins(self.problem))
        n = len(self.problem.locations)
        return [self.found(plan if plan is not None and any(plan[:n]) else self.cheapest) for plan in plans]

    def nothing(self) -> _Found:
        """Nothing inserted, and blocks recomputed as the cheapest insertion would need it."""
        n = len(self.problem.locations)
        return self.found([0] * n + self.cheapest[n:], self.needed_bytes)


def _best(ways: Sequence[_Way], budgets: Sequence[int]) -> list[_Found]:
    """Return the best plan of all ways per budget; a way is searched where its bound exceeds what is found."""
    candidates: list[list[_Found]] = [[] for _ in budgets]
    bounds = np.full((len(ways), len(budgets)), -math.inf)
    for w, way in enumerate(ways):
        largest = way.largest()
        for b, budget in enumerate(budgets):
            if largest is not None and largest.needed_bytes <= budget:
                candidates[b].append(largest)
            elif budget >= way.needed_bytes:
                bounds[w, b] = way.best_score
    scores = _scores(candidates)
    for w, way in enumerate(ways):
        close = np.flatnonzero(bounds[w] > scores)
        if len(ways) > 1 and len(close):
            bounds[w, close] = way.bounds([budgets[b] for b in close.tolist()])
    while (bounds > scores).any():
        w = int(np.bincount(bounds.argmax(axis=0)[(bounds > scores).any(axis=0)]).argmax())
        within = np.flatnonzero(bounds[w] > scores).tolist()
        for b, found in zip(within, ways[w].plans([budgets[b] for b in within]), strict=True):
            candidates[b].append(found)
        bounds[w] = -math.inf
        scores = _scores(candidates)
    if not all(candidates):
        nothing = min((way.nothing() for way in ways), key=lambda found: (found.needed_bytes, found.time))
        candidates = [found or [nothing] for found in candidates]
    return [max(found, key=lambda one: (one.score, -one.time, -one.needed_bytes)) for found in candidates]


def _scores(candidates: Sequence[Sequence[_Found]]) -> np.ndarray:
    return np.array([max((one.score for one in found), default=-math.inf) for found in candidates])
