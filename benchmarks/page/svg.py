"""Two plots as SVG, written by hand so that the same figures give the same bytes everywhere."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
COLOURS = (*OKABE_ITO, "#882255", "#117733", "#aa4499", "#ddcc77")  # and four of Tol's, where there are more series
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 70, 190, 44, 46
HEIGHT = 340
BAR, GAP = 12, 10


def lines(title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Points (x, y) joined by a line for each name."""
    xs, ys = zip(*(point for points in series.values() for point in points), strict=True)
    low, high, step = _scale(min(ys), max(ys))
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    span = (max(xs) - min(xs)) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - min(xs)) / span * wide, TOP + (high - y) / (high - low) * tall

    parts = [_text(LEFT + wide / 2, HEIGHT - 8, across, "middle"), _text(8, TOP - 10, up)]
    for number in range(round((high - low) / step) + 1):
        y = place(min(xs), low + number * step)[1]
        parts += [_line(LEFT, y, LEFT + wide, y), _text(LEFT - 8, y + 4, f"{low + number * step:g}", "end")]
    for x in sorted(set(xs)):
        parts.append(_text(place(x, low)[0], HEIGHT - BOTTOM + 18, f"{x:g}", "middle"))
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for point in points:
            x, y = place(*point)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        parts += _key(number, name, LEFT + wide + 18)
    return _whole(title, HEIGHT, parts)


def bars(title: str, unit: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """A group of bars from zero for each row, a bar for each series in it; values stand at their ends."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    left, wide = 190, WIDTH - 190 - RIGHT
    most = max(value for row in rows.values() for value in row.values()) or 1.0
    parts, y = [], float(TOP)
    for label, row in rows.items():
        parts.append(_text(left - 8, y + BAR * len(row) / 2 + 4, label, "end"))
        for name, value in row.items():
            size = max(value, 0.0) / most * (wide - 60)
            colour = COLOURS[names.index(name) % len(COLOURS)]
            parts.append(f'<rect x="{left}" y="{y:.1f}" width="{size:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            parts.append(_text(left + size + 5, y + BAR - 3, f"{value:.3g}{unit}"))
            y += BAR
        y += GAP
    for number, name in enumerate(names):
        parts += _key(number, name, left + wide + 18)
    return _whole(title, max(int(y) + 10, TOP + 20 * len(names)), parts)


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Round ends around both, and the step between five or so marks."""
    width = (high - low) or abs(high) or 1.0
    rough = width / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    bottom, top = math.floor(low / step), math.ceil(high / step)
    return bottom * step, max(top, bottom + 1) * step, step


def _key(number: int, name: str, x: float) -> list[str]:
    y = TOP + 20 * number
    colour = COLOURS[number % len(COLOURS)]
    return [f'<rect x="{x:.0f}" y="{y}" width="12" height="12" fill="{colour}"/>', _text(x + 18, y + 10, name)]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _whole(title: str, height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
    style = ' font-family="sans-serif" font-size="12" fill="#222222">'
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    name = f'<title>{escape(title)}</title><text x="12" y="20" font-size="14">{escape(title)}</text>'
    return "\n".join([head + style, ground, name, *parts, "</svg>", ""])
