"""The plan step's pictures, arranged."""

from taskit.planning.plan import Plan
from taskit.terminal import show_bytes, show_saving
from taskit.ui.charts import gain_curve, memory_bar, similarity_bars
from taskit.ui.commands import command
from taskit.ui.frontier_view import FrontierView
from taskit.ui.heatmap import heatmap
from taskit.ui.markup import figures, notice, panel, table, text
from taskit.ui.page import Chosen


def plan_view(made: FrontierView, chosen: Chosen) -> str:
    """The pictures and figures of a plan, as HTML."""
    plan = chosen.plan
    parts = (
        heatmap(plan),
        similarity_bars(plan),
        memory_bar(plan, rehearsed=chosen.rehearsed),
        gain_curve(made, plan),
    )
    cells = "".join(f"<div>{part}</div>" for part in parts)
    return f'{_shortfall(plan)}<div class="panels wide">{cells}</div>{_summary(chosen)}'


def _shortfall(plan: Plan) -> str:
    if any(plan.ranks.values()):
        return ""
    if not plan.shortfall_bytes:
        return notice("At this budget only the head is trained.", "warning")
    missing = (
        f"At this budget only the head is trained: the cheapest LoRA takes {show_bytes(plan.shortfall_bytes)} more."
    )
    return notice(missing, "warning")


def _summary(chosen: Chosen) -> str:
    plan = chosen.plan
    values = {
        "trained parameters": _short(plan.trainable_parameters),
        "rehearsed peak" if chosen.rehearsed else "estimated peak": show_bytes(plan.memory.peak_bytes),
        "budget": show_bytes(plan.budget_bytes),
        "optimizer steps": f"{plan.steps:,}",
        "rows at once / a step": f"{plan.training.micro_batch} / {plan.training.batch_size}",
        "learning rate": f"{plan.training.rate(plan.ranks.values()):g}",
    }
    words = text(command(chosen))
    lines = f'<details class="why"><summary>The same as commands</summary><pre tabindex="0">{words}</pre></details>'
    return f'<section class="card">{figures(values)}{_savings(plan)}{_explanations(plan)}{lines}</section>'


def _savings(plan: Plan) -> str:
    """What was done to fit, cheapest first."""
    if not plan.savings:
        return ""
    entries = "".join(f"<li>{text(one.sentence)} <b>{text(show_saving(one.bytes))}</b></li>" for one in plan.savings)
    return f'<h4>What was done to fit, cheapest first</h4><ol class="savings">{entries}</ol>'


def _short(count: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _explanations(plan: Plan) -> str:
    """The explanations as a table too: a tooltip needs a mouse."""
    if plan.explanation is None:
        return ""
    rows = [
        (
            str(location.block),
            text(location.role),
            str(location.rank or "none"),
            show_bytes(one.marginal_bytes),
            text(one.reason),
        )
        for location, one in zip(plan.locations, plan.explanation.locations, strict=True)
    ]
    lines = table(("block", "role", "rank", "adds", "why"), rows)
    return f'<details class="why"><summary>Why each module got its rank</summary>{lines}</details>'


def effect(before: FrontierView, after: FrontierView) -> str:
    """The change of both ends of the budget scale by other levers, as HTML."""
    rows = [
        (name, show_bytes(old), show_bytes(new), f"{'+' if new >= old else '−'}{show_bytes(abs(new - old))}")
        for name, old, new in (
            ("no update", before.budgets[0], after.budgets[0]),
            ("LoRA everywhere", before.budgets[-1], after.budgets[-1]),
        )
    ]
    return panel("What the levers did", "Peak memory of training.", table(("", "before", "now", "change"), rows))
