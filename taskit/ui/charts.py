"""The other pictures of the plan step: similar tasks, where the bytes go, what another byte would buy."""

from taskit.planning.plan import Plan
from taskit.terminal import show_bytes
from taskit.transfer.similarity import THRESHOLDS
from taskit.ui.frontier_view import FrontierView
from taskit.ui.markup import bar, empty, panel, share, text

CROWDED = 1.35  # times everything else: a larger budget is drawn at the edge, with an arrow
CURVE = (320, 130)  # width and height of the curve in its own units


def similarity_bars(plan: Plan) -> str:
    """One bar for each learned task, from zero to its similarity; the used ones in colour."""
    title, hint = "Which learned tasks this one resembles", "Only those beyond the threshold add to the importance."
    if not plan.similarity:
        nothing = empty("No learned task for this model", "Every module counts alike, until you train the first one.")
        return panel(title, hint, nothing)
    threshold = THRESHOLDS[plan.similarity_measure]
    phis = [one.phi for one in plan.similarity]
    low, high = min(0.0, threshold, *phis), max(0.0, threshold, *phis)
    width = (high - low) or 1.0
    rows = []
    for one in sorted(plan.similarity, key=lambda one: -one.phi):
        start, end = sorted((0.0, one.phi))
        length = f"left:{share(start - low, width)};width:{share(end - start, width)}"
        mark = f"left:{share(threshold - low, width)}"
        note = "" if one.used else " · not used"
        meaning = "adds to the importance" if one.used else "is too far from the new task to be used"
        rows.append(
            bar(
                text(one.task),
                f'<i style="{length}"></i><b style="{mark}"></b>',
                f"{one.phi:+.4f}{note}",
                muted=not one.used,
                tip=f"{one.task} {meaning}",
            )
        )
    key = f'<p class="hint">┆ threshold {threshold:g}; similarity of updates, from −1 to 1.</p>'
    return panel(title, hint, f'<div class="bars">{"".join(rows)}</div>{key}{_skipped(plan)}')


def _skipped(plan: Plan) -> str:
    if not plan.skipped:
        return ""
    items = "".join(f"<li>{text(one.adapter)}: {text(one.reason)}</li>" for one in plan.skipped)
    return f'<details class="hint"><summary>{len(plan.skipped)} skipped</summary><ul>{items}</ul></details>'


PARTS = (
    ("base", "weights, head and batch", "constant_bytes"),
    ("kept", "activations kept", "activation_bytes"),
    ("lora", "LoRA, gradients, optimizer", "module_bytes"),
    ("brief", "temporary", "transient_bytes"),
)


def memory_bar(plan: Plan, *, rehearsed: bool) -> str:
    """Where the bytes of the predicted peak are, against the budget and LoRA everywhere."""
    memory, budget = plan.memory, plan.budget_bytes
    used = max(memory.full_lora_bytes, memory.peak_bytes)
    scale = max(used, min(budget, used * CROWDED)) * 1.02
    pieces = "".join(
        f'<i class="{kind}" style="width:{share(size, scale)}" title="{name}: {show_bytes(size)}"></i>'
        for kind, name, field in PARTS
        if (size := getattr(memory, field))
    )
    marks = f'<b class="full" style="left:{share(memory.full_lora_bytes, scale)}" title="LoRA everywhere"></b>'
    marks += f'<b class="budget" style="left:{share(budget, scale)}" title="budget {show_bytes(budget)}"></b>'
    legend = "".join(
        f'<li><i class="{kind}"></i>{name} <b>{show_bytes(getattr(memory, field))}</b></li>'
        for kind, name, field in PARTS
    )
    arrow = " →" if budget > scale else ""
    ends = (
        f'<li><i class="budget"></i>budget <b>{show_bytes(budget)}{arrow}</b></li>'
        f'<li><i class="full"></i>LoRA everywhere <b>{show_bytes(memory.full_lora_bytes)}</b></li>'
    )
    body = f'<div class="stack" aria-hidden="true">{pieces}{marks}</div><ul class="legend">{legend}{ends}</ul>'
    return panel("Where the memory goes", _verdict(plan, rehearsed), body)


def _verdict(plan: Plan, rehearsed: bool) -> str:
    peak, budget = plan.memory.peak_bytes, plan.budget_bytes
    kind = "Rehearsed peak" if rehearsed else "Estimated peak"
    saved = plan.memory.full_lora_bytes - peak
    than = f", {show_bytes(saved)} less than LoRA everywhere" if saved > 0 else ""
    if plan.shortfall_bytes:
        return f"{kind} {show_bytes(peak)}; the cheapest LoRA would take {show_bytes(plan.shortfall_bytes)} more."
    verdict = "It fits" if peak <= budget else "It does not fit"
    return f"{kind} {show_bytes(peak)} of {show_bytes(budget)}. {verdict}{than}."


def gain_curve(view: FrontierView, plan: Plan) -> str:
    """The objective that every budget reaches, and where this plan stands."""
    width, height = CURVE
    values = [one.objective for one in view.schedules]
    top = max(*values, plan.objective) or 1.0
    points = [(i * width / (len(values) - 1), height - value / top * height) for i, value in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    position = min(max(view.position(plan.budget_bytes), 0.0), 100.0)
    x, y = position / 100 * width, height - plan.objective / top * height
    reached = plan.objective / top
    low, high = show_bytes(view.budgets[0]), show_bytes(view.budgets[-1])
    picture = (
        f'<svg class="curve" viewBox="-8 -10 {width + 16} {height + 20}" role="img" '
        f'aria-label="{reached:.0%} of the gain at {show_bytes(plan.budget_bytes)}">'
        f'<polygon points="0,{height} {line} {width},{height}"/><polyline points="{line}"/>'
        f'<line x1="0" y1="{height}" x2="{width}" y2="{height}"/>'
        f'<line class="here" x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{height}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6"/></svg>'
        f'<div class="ends"><span>{low}</span><span>{high}</span></div>'
    )
    hint = f"{show_bytes(plan.budget_bytes)} reach {reached:.0%} of the highest importance on the scale."
    return panel("What more memory would buy", hint, picture)
