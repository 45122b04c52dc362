"""A plan for any budget at once: the frontier of an outlook, computed when the visitor opens the plan step.

Its answers are drafts by the additive profile, a few per cent off; the one that is kept is rehearsed by `decide`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from taskit.planning.budget import Budget
from taskit.planning.context import Outlook
from taskit.planning.plan import Plan
from taskit.planning.planner import plan_of, reaches_further, solver
from taskit.scheduler import Schedule, frontier, schedule

STEPS = 100  # of the slider, from no update to full LoRA


@dataclass(frozen=True, slots=True)
class Sketch:
    """The best schedule at every per cent of the way from no update to full LoRA; ``budgets`` are bytes.

    ``recomputing`` says of each whether it recomputes blocks where planning decides that.
    """

    outlook: Outlook
    budgets: tuple[int, ...]
    schedules: tuple[Schedule, ...]
    recomputing: tuple[bool, ...]

    def draft(self, budget: Budget) -> Plan:
        """The plan at a budget, not rehearsed; at once for a per cent of the slider."""
        pricing = self.outlook.pricing
        limit = budget.resolve(pricing.no_update_bytes, pricing.full_lora_bytes)
        known = self if limit in self.budgets else _sketched(self.outlook, (limit,))
        position = known.budgets.index(limit)
        found = known.schedules[position]
        outlook = self.outlook.recomputing if known.recomputing[position] else self.outlook
        assert outlook
        return plan_of(outlook, found, limit, found.predicted_bytes)

    def position(self, size: int) -> float:
        """Where a budget in bytes lies on the slider, in per cent; outside 0 to 100 where it is off the scale."""
        low, high = self.budgets[0], self.budgets[-1]
        return (size - low) / (high - low) * STEPS if high > low else 0.0


def at_percent(percent: float) -> Budget:
    """A position of the slider as the budget that the CLI writes ``60%``."""
    return Budget(f"{percent:g}%", fraction=percent / STEPS)


def sketch(outlook: Outlook) -> Sketch:
    """The frontier of an outlook at every per cent."""
    low, high = outlook.pricing.no_update_bytes, outlook.pricing.full_lora_bytes
    return _sketched(outlook, tuple(at_percent(percent).resolve(low, high) for percent in range(STEPS + 1)))


def _sketched(outlook: Outlook, budgets: tuple[int, ...]) -> Sketch:
    keeping, again = _frontier(outlook, budgets), outlook.recomputing
    other = _frontier(again, budgets) if again else keeping
    pays = tuple(reaches_further(outlook, a, b) for a, b in zip(other, keeping, strict=True))
    found = tuple(a if one else b for one, a, b in zip(pays, other, keeping, strict=True))
    return Sketch(outlook, budgets, found, pays)


def _frontier(outlook: Outlook, budgets: Sequence[int]) -> tuple[Schedule, ...]:
    """The best schedule at each budget, or at the least that there is a schedule for."""
    affordable = [max(budget, outlook.floor) for budget in budgets]
    if outlook.settled.solve is schedule:
        return frontier(outlook.pricing.profile, outlook.importance, affordable, **outlook.wishes)
    return tuple(solver(outlook)(size) for size in affordable)
