"""The plan as a grid, blocks down and roles across, which the terminal and the picture draw alike."""

from dataclasses import dataclass

from taskit.planning.plan import Plan

# Cividis-like steps from dim to bright: distinct by brightness, so also without colour vision.
SHADES = ("#00224e", "#2a3f6d", "#575d6d", "#7d7c78", "#a59c74", "#d2c060", "#fee838")
MOST_IN_A_CELL = 4  # ranks shown of the experts that share a block and a role


@dataclass(frozen=True, slots=True)
class Cell:
    """The ranks at one block and role, "·" for none, on a background as bright as the importance."""

    text: str
    shade: str
    ink: str


@dataclass(frozen=True, slots=True)
class RankGrid:
    """``cells`` has an entry where the backbone has such a location."""

    blocks: tuple[int, ...]
    roles: tuple[str, ...]
    cells: dict[tuple[int, str], Cell]


def rank_grid(plan: Plan) -> RankGrid:
    """Where the plan inserts a LoRA and at which rank."""
    found: dict[tuple[int, str], list] = {}
    for location in plan.locations:
        found.setdefault((location.block, location.role), []).append(location)
    largest = max(location.importance for location in plan.locations) or 1.0
    cells = {place: _cell(locations, largest) for place, locations in found.items()}
    blocks, roles = sorted({block for block, _ in cells}), dict.fromkeys(place.role for place in plan.locations)
    return RankGrid(tuple(blocks), tuple(roles), cells)


def _cell(locations: list, largest: float) -> Cell:
    level = max(location.importance for location in locations) / largest
    shade = round(level * (len(SHADES) - 1))
    ranks = "/".join(str(location.rank) if location.rank else "·" for location in locations[:MOST_IN_A_CELL])
    return Cell(ranks, SHADES[shade], ink_on(SHADES[shade]))


def ink_on(shade: str) -> str:
    """Black or white, whichever stands out more from ``shade`` (#rrggbb): by at least 4.58 to 1.

    Relative luminance and contrast as WCAG 2.1 defines them, where AA asks for 4.5 to 1.
    """
    channels = (int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    on_black, on_white = (luminance + 0.05) / 0.05, 1.05 / (luminance + 0.05)
    return "#000000" if on_black > on_white else "#ffffff"
