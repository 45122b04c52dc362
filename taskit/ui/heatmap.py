"""Blocks by roles: how important each location is, which rank it gets, and why."""

from collections.abc import Sequence

from taskit.planning.plan import Plan, PlannedLocation
from taskit.planning.rank_grid import SHADES, ink_on
from taskit.terminal import show_bytes
from taskit.transfer.importance import attribution
from taskit.ui.markup import panel, text


def heatmap(plan: Plan) -> str:
    """A table with a row for each role and a column for each block; colour is importance, the number is the rank."""
    chosen = [location for location in plan.locations if location.rank]
    ranks = sorted({location.rank for location in chosen})
    span = "" if not ranks else f", rank {ranks[0]}" if len(ranks) == 1 else f", ranks {ranks[0]} to {ranks[-1]}"
    title = f"The plan: LoRA at {len(chosen)} of {len(plan.locations)} modules{span}"
    hint = (
        "Colour is predicted importance, brighter is more; numbers are ranks, pale modules have none. "
        "Point at one to see why."
    )
    return panel(title, hint, _grid(plan) + _scale() + _foot(chosen))


def _grid(plan: Plan) -> str:
    roles = list(dict.fromkeys(location.role for location in plan.locations))
    blocks = sorted({location.block for location in plan.locations})
    first = min((location.block for location in plan.locations if location.rank), default=None)
    explanations = {one.name: one.reason for one in plan.explanation.locations} if plan.explanation else {}
    cells: dict[tuple[str, int], list[PlannedLocation]] = {}
    for location in plan.locations:
        cells.setdefault((location.role, location.block), []).append(location)
    largest = max(location.importance for location in plan.locations) or 1.0
    rows = []
    for role in roles:
        row = []
        for column, block in enumerate(blocks):
            side = "left" if column >= len(blocks) / 2 else "right"
            start = " first" if block == first else ""
            row.append(_cell(cells.get((role, block), []), largest, explanations, side + start))
        rows.append(f'<tr><th scope="row">{text(role)}</th>{"".join(row)}</tr>')
    numbers = "".join(f'<th scope="col">{block}</th>' for block in blocks)
    foot = f'<tr><th scope="row" class="corner">block</th>{numbers}</tr>'
    return f'<div class="scroll"><table class="heat"><tbody>{"".join(rows)}{foot}</tbody></table></div>'


def _cell(locations: Sequence[PlannedLocation], largest: float, explanations: dict[str, str], kind: str) -> str:
    if not locations:
        return "<td></td>"
    level = max(location.importance for location in locations) / largest
    rank = max(location.rank for location in locations)
    kind = f"{kind} on" if rank else f"{kind} off"
    tip = "\n".join(_tooltip(location, largest, explanations) for location in locations[:4])
    shade = cividis(level)
    style = f"--shade:{shade};--ink-on:{ink_on(shade)}"
    return f'<td class="{kind}" style="{style}" data-tip="{text(tip)}">{rank or "<i>·</i>"}</td>'


def _tooltip(location: PlannedLocation, largest: float, explanations: dict[str, str]) -> str:
    size = f", {show_bytes(location.bytes)}" if location.rank else ""
    head = f"{location.name}: importance {location.importance / largest:.0%} of the largest{size}."
    tip = f"From {attribution(location.sources)}." if location.importance else ""
    return "\n".join(line for line in (head, tip, explanations.get(location.name, "")) if line)


def _scale() -> str:
    return (
        f'<div class="scale" aria-hidden="true"><span>less important</span>'
        f'<i style="background:linear-gradient(90deg,{",".join(SHADES)})"></i><span>more important</span></div>'
    )


def _foot(chosen: Sequence[PlannedLocation]) -> str:
    if not chosen:
        return '<p class="hint">Only the head is trained: no module fits into the budget.</p>'
    first = min(location.block for location in chosen)
    if first == 0:
        return '<p class="hint">The backward pass runs through every block.</p>'
    return f'<p class="hint">┆ The backward pass ends at block {first}: nothing of an earlier one is kept.</p>'


def cividis(level: float) -> str:
    """The colour at ``level`` in [0, 1] of the cividis scale, distinguishable by brightness alone, as #rrggbb."""
    position = min(max(level, 0.0), 1.0) * (len(SHADES) - 1)
    low = min(int(position), len(SHADES) - 2)
    mix = position - low
    pair = ([int(shade[i : i + 2], 16) for i in (1, 3, 5)] for shade in SHADES[low : low + 2])
    return "#" + "".join(f"{round(a + (b - a) * mix):02x}" for a, b in zip(*pair, strict=True))
