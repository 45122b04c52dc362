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

from taskit.scheduler.trellis import Layer, Trellis

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
UNREACHABLE = -(2**62)  # stays negative after any sum of gains, see `_quantum` in options.py

Move = tuple[int, np.ndarray, int]  # first bin, values from there on, what to add to them


@dataclass(frozen=True, slots=True)
class Row:
    """The ways that reach the best values of one state, for the bins `start`, `start + 1`, ..."""

    start: int
    way: np.ndarray  # unsigned integers (bins,)


@dataclass(frozen=True, slots=True)
class Steps:
    """A layer in bins: its tolls, int64 (sources,), and its options' own beside their ranks and bytes, (options,).

    Of options that round to equal bins only the best is `tried`.
    """

    tolls: np.ndarray
    own: np.ndarray
    rank: np.ndarray
    bytes: np.ndarray
    tried: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ways:
    """How the number of a way is packed: the source in the lowest bits, the option above it."""

    source_bits: int
    bits: int

    @classmethod
    def of(cls, trellis: Trellis) -> "Ways":
        source_bits = (max(len(layer.tolls) for layer in trellis.layers) - 1).bit_length()
        return cls(source_bits, source_bits + (max(len(layer.options) for layer in trellis.layers) - 1).bit_length())


def binned_plans(trellis: Trellis, budgets: Sequence[int], span_bytes: int, bins: int) -> list[list[int] | None]:
    """Return near-optimal ranks that fit, one list per budget (bytes above the empty strategy), or None if none do.

    `span_bytes` is the price of the largest strategy; `bins` the number of bins, U in the paper, that cover it.
    """
    width = max(1, -(-span_bytes // bins))
    roundings = 2 * len(trellis.layers)
    drift = math.isqrt(roundings) + 1 if width > 1 else 0  # how far rounding leads astray, in bins
    room = np.minimum(np.array(budgets), span_bytes)
    reach = room // width + np.where(room < span_bytes, drift, roundings)
    steps = _round_bytes(trellis, width)
    table, value = _fill(trellis, steps, int(reach.max()))
    rises = np.flatnonzero(value > np.maximum.accumulate(np.append(UNREACHABLE // 2, value))[:-1])
    bin_of = rises + table[-1][0].start
    plans: list[list[int] | None] = [None] * len(budgets)
    top = np.searchsorted(bin_of, reach, side="right")
    waiting = np.flatnonzero(top)
    while len(waiting):  # every pass looks one window further down from `top`, until something fits
        windows = [np.arange(max(0, top[b] - 1 - 2 * drift), top[b]) for b in waiting]
        wanted = np.zeros(len(rises), bool)
        wanted[np.concatenate(windows)] = True
        ranks, price = _backtrack(trellis, steps, table, bin_of[wanted])
        place = np.cumsum(wanted) - 1
        for b, window in zip(waiting, windows, strict=True):
            fits = place[window][price[place[window]] <= room[b]]
            top[b] = window[0]
            if len(fits):
                plans[b], top[b] = ranks[fits[-1]].tolist(), 0
        waiting = np.flatnonzero(top)
    return plans


def _round_bytes(trellis: Trellis, width: int) -> list[Steps]:
    """Return every layer's bytes in bins of `width`.

    The blocks of a network are alike, and so would be their rounding errors; multiples of the golden ratio spread the
    rounding threshold evenly over the locations.
    """
    found = []
    for k, layer in enumerate(trellis.layers, start=1):
        toll, own = (int(width * (n * GOLDEN_RATIO % 1)) for n in (2 * k, 2 * k + 1))
        sizes = np.array([option.bytes for option in layer.options], np.int64)
        bins = (sizes + own) // width
        best = {int(bins[o]): o for o in range(layer.may_skip, len(bins))}  # options come by rising gain
        ranks = np.array([option.rank for option in layer.options])
        tolls = (np.array(layer.tolls, np.int64) + toll) // width
        found.append(Steps(tolls, bins, ranks, sizes, tuple(best.values())))
    return found


def _fill(trellis: Trellis, steps: Sequence[Steps], limit: int) -> tuple[list[list[Row]], np.ndarray]:
    """Return a row per location and state up to bin `limit`, and the final values (negative where unreachable)."""
    ways = Ways.of(trellis)
    known: list[tuple[int, np.ndarray]] = [(0, np.zeros(1, np.int64))]
    table = [[Row(0, np.zeros(1, np.uint8))]]
    for layer, step in zip(trellis.layers, steps, strict=True):
        arrived = [_arrive(known, layer, step, state, limit, ways) for state in range(layer.states)]
        table.append([row for row, _ in arrived])
        known = [(row.start, value) for row, value in arrived]
    return table, known[0][1]


def _arrive(
    known: Sequence[tuple[int, np.ndarray]], layer: Layer, step: Steps, state: int, limit: int, ways: Ways
) -> tuple[Row, np.ndarray]:
    """Take the maximum over all ways into one state; `known` holds the sources' first bins and values.

    The number of the way rides in the low bits of the value, so one maximum finds the value, the way and the winner
    among equals. All options are tried on the best of the sources at once.
    """
    moves: list[Move] = [(*known[s], s) for s, target in enumerate(layer.skips) if target == state]
    tolls = step.tolls.tolist()
    entries = [(known[s][0] + tolls[s], known[s][1], s) for s, target in enumerate(layer.inserts) if target == state]
    if len(entries) > 1:
        entries = [(*_maximum(entries, limit), 0)]
    for start, value, source in entries:
        for number in step.tried:
            way = (layer.options[number].gain << ways.bits) + (number << ways.source_bits) + source
            moves.append((start + int(step.own[number]), value, way))
    start, best = _maximum(moves, limit)
    mask = (1 << ways.bits) - 1
    row = Row(start, (best & mask).astype(np.min_scalar_type(mask)))
    best &= ~mask
    return row, best


def _maximum(moves: Sequence[Move], limit: int) -> tuple[int, np.ndarray]:
    """Return the largest value over all moves in each bin up to `limit`, and the first bin."""
    first = min(start for start, _, _ in moves)
    size = max(min(start + len(value), limit + 1) for start, value, _ in moves) - first
    best = np.full(max(size, 0), UNREACHABLE)
    scratch = np.empty_like(best)
    for start, value, gain in moves:
        length = min(len(value), limit + 1 - start)
        if length > 0:
            grown = np.add(value[:length], gain, out=scratch[:length])
            here = best[start - first : start - first + length]
            np.maximum(here, grown, out=here)
    return first, best


def _backtrack(
    trellis: Trellis, steps: Sequence[Steps], table: Sequence[Sequence[Row]], bins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the strategies that end in `bins`: ranks of shape (bins, locations) and exact prices, (bins,)."""
    source_bits = Ways.of(trellis).source_bits
    ranks = np.zeros((len(bins), len(trellis.layers)), np.int64)
    price, state, left = np.zeros_like(bins), np.zeros_like(bins), bins.copy()
    for k in range(len(trellis.layers) - 1, -1, -1):
        layer, step = trellis.layers[k], steps[k]
        way = np.zeros(len(bins), np.int64)
        for t, row in enumerate(table[k + 1]):
            here = np.flatnonzero(state == t)
            if len(here):
                way[here] = row.way[left[here] - row.start]
        number, source = way >> source_bits, way & ((1 << source_bits) - 1)
        inserted = number >= layer.may_skip
        ranks[:, k] = step.rank[number]
        price += step.bytes[number] + inserted * np.array(layer.tolls)[source]
        left -= inserted * (step.own[number] + step.tolls[source])
        state = source
    return ranks, price
