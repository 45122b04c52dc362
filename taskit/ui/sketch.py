"""A plan for any budget at once: the frontier of an outlook, computed when the visitor opens the plan step.

Its answers are drafts by the additive profile, a few per cent off; the one that is kept is rehearsed by `decide`.
"""

from dataclasses import dataclass

from taskit.budget import Budget
from taskit.outlook import Outlook
from taskit.plan import Plan
from taskit.planning import plan_of
from taskit.scheduler import Schedule, frontier, schedule

STEPS = 100  # of the slider, from no update to full LoRA


@dataclass(frozen=True, slots=True)
class Sketch:
    """The best schedule at every per cent of the way from no update to full LoRA; ``budgets`` are bytes."""

    outlook: Outlook
    budgets: tuple[int, ...]
    schedules: tuple[Schedule, ...]

    def draft(self, budget: Budget) -> Plan:
        """The plan at a budget, not rehearsed; at once for a per cent of the slider."""
        outlook, pricing = self.outlook, self.outlook.pricing
        limit = budget.resolve(pricing.no_update_bytes, pricing.full_lora_bytes)
        if limit in self.budgets:
            found = self.schedules[self.budgets.index(limit)]
        else:
            solve = outlook.settled.solve
            found = solve(pricing.profile, outlook.importance, max(limit, outlook.floor), **outlook.wishes)
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
    pricing = outlook.pricing
    low, high = pricing.no_update_bytes, pricing.full_lora_bytes
    budgets = [at_percent(percent).resolve(low, high) for percent in range(STEPS + 1)]
    affordable = [max(budget, outlook.floor) for budget in budgets]
    solve = outlook.settled.solve
    if solve is schedule:
        found = frontier(pricing.profile, outlook.importance, affordable, **outlook.wishes)
    else:
        found = tuple(solve(pricing.profile, outlook.importance, size, **outlook.wishes) for size in affordable)
    return Sketch(outlook, tuple(budgets), found)
