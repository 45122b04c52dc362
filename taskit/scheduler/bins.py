"""Fast search: one table of best values over bins of bytes, read at every budget at once.

Each step is rounded up or down in turn, so over a path the errors cancel instead of adding up (rounding up wastes
half a bin per insertion). What decides is the exact price: around a budget's bin the candidate strategies are read
back with their exact bytes, and the most valuable one that truly fits is taken. The bins do not depend on the budget,
so a larger budget never gives a worse strategy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskit.scheduler.trellis import Edges, Trellis

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
UNREACHABLE = -(2**62)  # stays negative after any sum of gains, see `_gain_quantum` in search.py


@dataclass(frozen=True, slots=True)
class Row:
    """The edges that reach the best values of one state, for the bins `start`, `start + 1`, ..."""

    start: int
    edge: np.ndarray  # uint16 (bins,)


def binned_plans(trellis: Trellis, budgets: Sequence[int], span_bytes: int, bins: int) -> list[list[int]]:
    """Return near-optimal ranks that fit, one list per budget (bytes above the empty strategy).

    `span_bytes` is the price of the largest strategy; `bins` the number of bins, U in the paper, that cover it.
    """
    width = max(1, -(-span_bytes // bins))
    drift = math.isqrt(len(trellis.layers)) + 1 if width > 1 else 0  # how far rounding leads astray, in bins
    room = np.minimum(np.array(budgets), span_bytes)
    reach = room // width + np.where(room < span_bytes, drift, len(trellis.layers))
    nominal = _round_bytes(trellis, width)
    table, value = _fill(trellis, nominal, int(reach.max()))
    rises = np.flatnonzero(value > np.maximum.accumulate(np.append(-1, value))[:-1])
    plans: list[list[int]] = [[0] * len(trellis.layers) for _ in budgets]
    top = np.searchsorted(rises, reach, side="right")
    waiting = np.flatnonzero(top)
    while len(waiting):  # every pass looks one window further down from `top`, until something fits
        windows = [np.arange(max(0, top[b] - 1 - 2 * drift), top[b]) for b in waiting]
        wanted = np.zeros(len(rises), bool)
        wanted[np.concatenate(windows)] = True
        ranks, price = _backtrack(trellis, nominal, table, rises[wanted])
        place = np.cumsum(wanted) - 1
        for b, window in zip(waiting, windows, strict=True):
            fits = place[window][price[place[window]] <= room[b]]
            top[b] = window[0]
            if len(fits):
                plans[b], top[b] = ranks[fits[-1]].tolist(), 0
        waiting = np.flatnonzero(top)
    return plans


def _round_bytes(trellis: Trellis, width: int) -> list[list[np.ndarray]]:
    """Return every edge's bytes in bins of `width`.

    The blocks of a network are alike, and so would be their rounding errors; multiples of the golden ratio spread the
    rounding threshold evenly over the locations.
    """
    offsets = [int(width * (k * GOLDEN_RATIO % 1)) for k in range(1, len(trellis.layers) + 1)]
    return [
        [(e.bytes + offset) // width for e in layer] for layer, offset in zip(trellis.layers, offsets, strict=True)
    ]


def _fill(
    trellis: Trellis, nominal: Sequence[Sequence[np.ndarray]], limit: int
) -> tuple[list[list[Row]], np.ndarray]:
    """Return a row per location and state up to bin `limit`, and the final values (negative where unreachable)."""
    shift = max(len(edges.source) for layer in trellis.layers for edges in layer).bit_length()
    table, values = [[Row(0, np.zeros(1, np.uint16))]], [np.zeros(1, np.int64)]
    for layer, costs in zip(trellis.layers, nominal, strict=True):
        known = [(row.start, value) for row, value in zip(table[-1], values, strict=True)]
        relaxed = [_relax(known, edges, cost, limit, shift) for edges, cost in zip(layer, costs, strict=True)]
        table.append([row for row, _ in relaxed])
        values = [value for _, value in relaxed]
    return table, values[0]


def _relax(
    known: Sequence[tuple[int, np.ndarray]], edges: Edges, costs: np.ndarray, limit: int, shift: int
) -> tuple[Row, np.ndarray]:
    """Take the maximum over all edges into one state; `known` holds the sources' first bins and values.

    The edge's number rides in the low bits of the value, so one maximum finds the value, the edge and the winner
    among equals.
    """
    moves = []
    for edge, (source, cost, gain) in enumerate(zip(edges.source, costs.tolist(), edges.gain.tolist(), strict=True)):
        start, value = known[source]
        moves.append((start + cost, value[: max(0, limit + 1 - start - cost)], (gain << shift) | edge))
    first = min(start for start, _, _ in moves)
    best = np.full(max(start + len(value) for start, value, _ in moves) - first, UNREACHABLE)
    scratch = np.empty_like(best)
    for start, value, gain in moves:
        grown = np.add(value, gain, out=scratch[: len(value)])
        here = best[start - first : start - first + len(value)]
        np.maximum(here, grown, out=here)
    edge = best.astype(np.uint16) & np.uint16((1 << shift) - 1)
    best &= -1 << shift
    return Row(first, edge), best


def _backtrack(
    trellis: Trellis, nominal: Sequence[Sequence[np.ndarray]], table: Sequence[Sequence[Row]], bins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the strategies that end in `bins`: ranks of shape (bins, locations) and exact prices, (bins,)."""
    ranks = np.zeros((len(bins), len(trellis.layers)), np.int64)
    price, state, left = np.zeros_like(bins), np.zeros_like(bins), bins.copy()
    for k in range(len(trellis.layers) - 1, -1, -1):
        arrived = state.copy()
        for t, (edges, row) in enumerate(zip(trellis.layers[k], table[k + 1], strict=True)):
            here = np.flatnonzero(arrived == t)
            edge = row.edge[left[here] - row.start]
            ranks[here, k] = edges.rank[edge]
            price[here] += edges.bytes[edge]
            left[here] -= nominal[k][t][edge]
            state[here] = edges.source[edge]
    return ranks, price
