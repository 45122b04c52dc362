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
UNREACHABLE = -(2**62)  # stays negative after any sum of gains, see `gain_quantum` in search.py


@dataclass(frozen=True, slots=True)
class Row:
    """Best values of one state, and the edges that reach them, for the bins `start`, `start + 1`, ..."""

    start: int
    value: np.ndarray  # int64 (bins,), already shifted left by the width of an edge's number
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
    table = _fill(trellis, nominal, int(reach.max()))
    value = table[-1][0].value
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


def _fill(trellis: Trellis, nominal: Sequence[Sequence[np.ndarray]], limit: int) -> list[list[Row]]:
    """Return the table: for every location and state a row of best values up to bin `limit`."""
    shift = max(len(edges.source) for layer in trellis.layers for edges in layer).bit_length()
    table = [[Row(0, np.zeros(1, np.int64), np.zeros(1, np.uint16))]]
    for layer, costs in zip(trellis.layers, nominal, strict=True):
        table.append([_relax(table[-1], edges, c, limit, shift) for edges, c in zip(layer, costs, strict=True)])
        table[-2] = [Row(row.start, row.value[:0], row.edge) for row in table[-2]]  # only the edges are read again
    return table


def _relax(sources: Sequence[Row], edges: Edges, costs: np.ndarray, limit: int, shift: int) -> Row:
    """Take the maximum over all edges into one state.

    The edge's number rides in the low bits of the value, so one maximum finds the value, the edge and the winner
    among equals.
    """
    moves = [
        (row.start + cost, row.value[: max(0, limit + 1 - row.start - cost)], (gain << shift) | edge)
        for edge, (row, cost, gain) in enumerate(
            zip((sources[s] for s in edges.source), costs.tolist(), edges.gain.tolist(), strict=True)
        )
    ]
    start = min(first for first, _, _ in moves)
    value = np.full(max(first + len(known) for first, known, _ in moves) - start, UNREACHABLE)
    scratch = np.empty_like(value)
    for first, known, gain in moves:
        grown = np.add(known, gain, out=scratch[: len(known)])
        here = value[first - start : first - start + len(known)]
        np.maximum(here, grown, out=here)
    edge = value.astype(np.uint16) & np.uint16((1 << shift) - 1)
    value &= -1 << shift
    return Row(start, value, edge)


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
