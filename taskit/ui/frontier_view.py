"""The plans for all budgets: the frontier of a planning context, computed when the visitor opens the plan step.

Its plans are drafts by the additive profile, a few per cent off; the one that is saved or trained is rehearsed by
`decide`.
"""

from dataclasses import dataclass

from taskit.planning.budget import Budget
from taskit.planning.context import PlanningContext
from taskit.planning.plan import Plan
from taskit.planning.planner import plan_of, reaches_further
from taskit.scheduler import Schedule

STEPS = 100  # of the slider, from no update to full LoRA


@dataclass(frozen=True, slots=True)
class FrontierView:
    """The best schedule at every per cent of the way from no update to full LoRA; ``budgets`` are bytes.

    ``recomputing`` is whether each recomputes blocks, where planning decides that.
    """

    context: PlanningContext
    budgets: tuple[int, ...]
    schedules: tuple[Schedule, ...]
    recomputing: tuple[bool, ...]

    def draft(self, budget: Budget) -> Plan:
        """The plan at a budget, not rehearsed; for a per cent of the slider nothing is computed anew."""
        pricing = self.context.pricing
        limit = budget.resolve(pricing.no_update_bytes, pricing.full_lora_bytes)
        known = self if limit in self.budgets else _frontier_view(self.context, (limit,))
        position = known.budgets.index(limit)
        found = known.schedules[position]
        context = self.context.recomputing if known.recomputing[position] else self.context
        assert context
        return plan_of(context, found, limit, found.predicted_bytes)

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
    keeping, again = context.frontier(budgets), context.recomputing
    other = again.frontier(budgets) if again else keeping
    pays = tuple(reaches_further(context, a, b) for a, b in zip(other, keeping, strict=True))
    found = tuple(a if one else b for one, a, b in zip(pays, other, keeping, strict=True))
    return FrontierView(context, budgets, found, pays)
