"""The plan as a picture for the model card: the rank of each location on a ground as bright as its importance."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from taskit.planning.plan import Plan
from taskit.planning.rank_grid import rank_grid

CELL, MARGIN, TEXT = (64, 32), (72, 56), 15  # pixels; a PNG, for the Hub serves an SVG of a stranger as text


def draw_plan(plan: Plan, path: Path) -> None:
    """Write a PNG with blocks down and roles across."""
    grid = rank_grid(plan)
    (width, height), (left, top) = CELL, MARGIN
    longest = max(len(cell.text) for cell in grid.cells.values())
    width = max(width, (longest + 2) * TEXT * 2 // 3)
    size = (left + width * len(grid.roles) + 16, top + height * len(grid.blocks) + 16)
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(TEXT)
    draw.text((12, 8), "LoRA rank by block and role (brighter = more important)", fill="black", font=font)
    for column, role in enumerate(grid.roles):
        draw.text((left + width * (column + 0.5), top - 12), role, fill="black", font=font, anchor="mm")
    for row, block in enumerate(grid.blocks):
        draw.text((left - 12, top + height * (row + 0.5)), str(block), fill="black", font=font, anchor="rm")
        for column, role in enumerate(grid.roles):
            cell = grid.cells.get((block, role))
            if cell is not None:
                x, y = left + width * column, top + height * row
                draw.rectangle((x, y, x + width - 2, y + height - 2), fill=cell.shade)
                middle = (x + width / 2 - 1, y + height / 2 - 1)
                draw.text(middle, cell.text, fill=cell.ink, font=font, anchor="mm")
    image.save(path, "PNG")
