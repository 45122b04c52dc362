"""Stub until the joint search lands."""

from dataclasses import dataclass
from functools import partial

from taskit.memory.profile import MemoryProfile
from taskit.scheduler.search import Schedule, schedule


@dataclass(frozen=True, slots=True)
class Step:
    profile: MemoryProfile
    micro_batch: int
    time: float
    block_time: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class JointSchedule(Schedule):
    step: int = 0
    recomputed: tuple[int, ...] = ()
    time: float = 0.0
    value: float = 0.0


def joint_frontier(steps, importance, budgets, **options):
    from taskit.scheduler.levers import cheapest_lever

    solve = partial(schedule, importance=importance, **options)
    return tuple(
        cheapest_lever(steps, lambda profile, budget: solve(profile, budget_bytes=budget), b) for b in budgets
    )
