"""The plans for all budgets: the frontier of a planning context, computed when the visitor opens the plan step.

Its plans are drafts by the additive profile, a few per cent off; the one that is saved or trained is rehearsed by
`decide`.
"""

from dataclasses import dataclass

from taskit.planning.budget import Budget
from taskit.planning.context import PlanningContext
from taskit.planning.plan import Plan
from taskit.planning.planner import nothing_inserted, plan_of
from taskit.scheduler import JointSchedule

STEPS = 100  # of the slider, from no update to full LoRA


@dataclass(frozen=True, slots=True)
class FrontierView:
    """The best schedule at every per cent of the way from no update to full LoRA; ``budgets`` are bytes."""

    context: PlanningContext
    budgets: tuple[int, ...]
    schedules: tuple[JointSchedule, ...]

    def draft(self, budget: Budget) -> Plan:
        """The plan at a budget, not rehearsed; for a per cent of the slider nothing is computed anew."""
        pricing = self.context.pricing
        limit = budget.resolve(pricing.no_update_bytes, pricing.full_lora_bytes)
        known = self if limit in self.budgets else _frontier_view(self.context, (limit,))
        found = known.schedules[known.budgets.index(limit)]
        if budget.fraction == 0:
            found = nothing_inserted(self.context)
        return plan_of(self.context, found, limit, found.predicted_bytes)

    def position(self, size: int) -> float:
        """Where a budget in bytes lies on the slider, in per cent; outside 0 to 100 where it is off the scale."""
        low, high = self.budgets[0], self.budgets[-1]
        return (size - low) / (high - low) * STEPS if high > low else 0.0


def at_percent(percent: float) -> Budget:
    """A position of the slider as the budget that the CLI writes ``60%``."""
    return Budget(f"{percent:g}%", fraction=percent / STEPS)


def frontier_view(context: PlanningContext) -> FrontierView:
    """The frontier of a planning context at every per cent."""
    low, high = context.pricing.no_update_bytes, context.pricing.full_lora_bytes
    return _frontier_view(context, tuple(at_percent(percent).resolve(low, high) for percent in range(STEPS + 1)))


def _frontier_view(context: PlanningContext, budgets: tuple[int, ...]) -> FrontierView:
    return FrontierView(context, budgets, context.frontier(budgets))
