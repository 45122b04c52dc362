"""Which exact lever to take where a method chooses ranks in a way of its own: nothing recomputed, or all blocks.

`joint_frontier` decides block by block, but only for ranks that are chosen by importance.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from taskit.errors import BudgetError
from taskit.memory.profile import MemoryProfile
from taskit.scheduler.joint import TIME_PRICE, JointSchedule, Step
from taskit.scheduler.search import Schedule


def cheapest_lever(
    steps: Sequence[Step], solve: Callable[[MemoryProfile, int], Schedule], budget_bytes: int
) -> JointSchedule:
    """The best of the schedules that ``solve`` finds for each step at a budget, its time counted against it.

    Raises:
        BudgetError: no step fits the budget.
    """
    found: list[JointSchedule] = []
    refused: BudgetError | None = None
    for i, step in enumerate(steps):
        every = tuple(range(len(step.profile.recomputable)))
        for recomputed in dict.fromkeys(((), every)):
            time = step.time + sum(step.block_time[k] for k in recomputed)
            try:
                one = solve(step.profile.recomputing(recomputed), budget_bytes)
            except BudgetError as error:
                refused = error
                continue
            found.append(JointSchedule(**asdict(one), step=i, recomputed=recomputed, time=time))
    if not found:
        assert refused
        raise refused
    most = max(one.objective for one in found) or 1.0
    valued = [replace(one, value=one.objective / most - TIME_PRICE * one.time) for one in found]
    return max(valued, key=lambda one: (one.value, -one.shortfall_bytes))
