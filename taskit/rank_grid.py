"""The plan as a grid, blocks down and roles across, which the terminal and the picture draw alike."""

from dataclasses import dataclass

from taskit.plan import Plan

# Cividis-like steps from dim to bright: told apart by brightness, so also without colour vision.
SHADES = ("#00224e", "#2a3f6d", "#575d6d", "#7d7c78", "#a59c74", "#d2c060", "#fee838")
MOST_IN_A_CELL = 4  # ranks shown of the experts that share a block and a role


@dataclass(frozen=True, slots=True)
class Cell:
    """The ranks at one block and role, "·" for none, on a ground as bright as the importance."""

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
    return Cell(ranks, SHADES[shade], "black" if shade > len(SHADES) // 2 else "white")
