"""Fast search: one table of best values over bins of bytes, read at every budget at once.

Each step is rounded up or down in turn, so over a path the errors cancel instead of adding up (rounding up wastes
half a bin per insertion). What decides is the exact price: around a budget's bin the candidate strategies are read
back with their exact bytes, and the most valuable one that truly fits is taken. The bins do not depend on the budget,
so a larger budget never gives a worse strategy.

A value holds the step that reached it in its lowest bits (`BackPointers`), so one maximum finds both. An example in
bins of one byte: two locations share a storage of 2 bytes; the first may take rank 1 (1 byte, gain 3) or rank 2
(2 bytes, gain 5), the second rank 1 (1 byte, gain 3). The best gains after the first location, where an insertion has
paid for the storage, are

    bin                                    0   1   2   3   4
    state 0, storage unpaid                0
    state 1, storage paid                              3   5

All steps into the only state after the second location, and the best of them with its option and source, are

    bin                                    0   1   2   3   4   5
    skip (option 0) from state 0           0
    skip (option 0) from state 1                       3   5
    insert (option 1) from state 0                     3
    insert (option 1) from state 1                         6   8
    best gain                              0           3   6   8
    its option, source                    0,0         1,0 1,1 1,1

Two bits hold the option and one the source. In bin 3 skipping gives `3 << 3 | 0 << 1 | 1` = 25 and inserting
`3 << 3 | 1 << 1 | 0` = 26: of two equal gains the insertion is kept. Read back from bin 5, option 1 from state 1
takes 1 byte and no storage, so bin 4 of state 1 comes before; there option 2 from state 0 takes 2 bytes and the
storage of 2, so bin 0 comes before. The ranks 2 and 1 therefore take 5 bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskit.scheduler.trellis import Layer, Trellis

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
UNREACHABLE = -(2**62)  # stays negative after any sum of gains, see `_quantum` in options.py

Move = tuple[int, np.ndarray, int]  # first bin, the source's values from there on, the packed step to add to them


@dataclass(frozen=True, slots=True)
class BinnedLayer:
    """A layer with its bytes in bins, as arrays.

    Args:
        layer: the layer itself, in bytes.
        entry_bins: its `entry_bytes` in bins, int64 (sources,).
        skip_bins: the same of its `skip_bytes`.
        own_bins: the bytes of its options in bins, int64 (options,).
        ranks: the ranks of its options, (options,).
        bytes: the exact bytes of its options, int64 (options,).
        tried: per source the options that insert from it; of those that round to equal bins only the best.
    """

    layer: Layer
    entry_bins: np.ndarray
    skip_bins: np.ndarray
    own_bins: np.ndarray
    ranks: np.ndarray
    bytes: np.ndarray
    tried: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class BackPointers:
    """How a value remembers the step that reached it: in its lowest bits.

    A step is the number of the layer's option that it takes and the state that it comes from, its source. A value is
    kept as `gain << bits | option << source_bits | source`, so one maximum over whole numbers finds the largest gain
    and its step together. Among equal gains the higher option wins, then the higher source. Where a location may be
    skipped, that is option 0.

    >>> pointers = BackPointers(source_bits=1, bits=3)
    >>> pointers.pack(gain=3, option=0, source=1), pointers.pack(gain=3, option=1, source=0)
    (25, 26)
    """

    source_bits: int
    bits: int  # of option and source together

    @classmethod
    def of(cls, layers: Sequence[BinnedLayer]) -> "BackPointers":
        """Return the layout that fits every option and source of `layers`."""
        source_bits = (max(len(binned.entry_bins) for binned in layers) - 1).bit_length()
        return cls(source_bits, source_bits + (max(len(binned.ranks) for binned in layers) - 1).bit_length())

    def pack(self, gain: int, option: int, source: int) -> int:
        """Return a value, or what a step adds to a value whose back-pointer is 0."""
        return (gain << self.bits) + (option << self.source_bits) + source

    def take_from(self, values: np.ndarray) -> np.ndarray:
        """Return the back-pointers of `values`, in the smallest type that holds them, and set them to 0 there."""
        mask = (1 << self.bits) - 1
        pointers = (values & mask).astype(np.min_scalar_type(mask))
        values &= ~mask
        return pointers

    def unpack(self, pointers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return options and sources."""
        return pointers >> self.source_bits, pointers & ((1 << self.source_bits) - 1)


@dataclass(frozen=True, slots=True)
class Row:
    """The back-pointers of one state's best values, for the bins `start`, `start + 1`, ..."""

    start: int
    pointers: np.ndarray  # unsigned integers (bins,)


def binned_plans(trellis: Trellis, budgets: Sequence[int], span_bytes: int, bins: int) -> list[list[int] | None]:
    """Return near-optimal choices that fit, one per layer, in a list per budget, or None if none do.

    Budgets are bytes above the empty strategy.
    `span_bytes` is the price of the largest strategy; `bins` the number of bins, U in the paper, that cover it.
    """
    if not trellis.layers[-1].states:
        return [None for _ in budgets]
    width = max(1, -(-span_bytes // bins))
    roundings = 2 * len(trellis.layers)
    drift = math.isqrt(roundings) + 1 if width > 1 else 0  # how many bins off rounding may put a strategy
    free_bytes = np.minimum(np.array(budgets), span_bytes)
    last_bin = free_bytes // width + np.where(free_bytes < span_bytes, drift, roundings)
    layers = round_bytes(trellis, width)
    table, value = fill_table(layers, int(last_bin.max()))
    best_before = np.maximum.accumulate(np.append(UNREACHABLE // 2, value))[:-1]  # over all lower bins
    ends = np.flatnonzero(value > best_before) + table[-1][0].start
    plans: list[list[int] | None] = [None] * len(budgets)
    unread = np.searchsorted(ends, last_bin, side="right")  # per budget: how many of `ends` are still to be tried
    while unread.any():  # every pass reads one window further down, until something fits
        waiting = np.flatnonzero(unread)
        windows = [np.arange(max(0, unread[b] - 1 - 2 * drift), unread[b]) for b in waiting]
        read = np.unique(np.concatenate(windows))
        ranks, price = backtrack(layers, table, ends[read])
        for b, window in zip(waiting, windows, strict=True):
            rows = np.searchsorted(read, window)
            fits = rows[price[rows] <= free_bytes[b]]
            unread[b] = window[0]
            if len(fits):
                plans[b], unread[b] = ranks[fits[-1]].tolist(), 0
    return plans


def round_bytes(trellis: Trellis, width: int) -> list[BinnedLayer]:
    """Return every layer's bytes in bins of `width`.

    The blocks of a network are alike, and so would be their rounding errors; multiples of the golden ratio spread the
    rounding threshold evenly over the locations.
    """
    found = []
    for k, layer in enumerate(trellis.layers, start=1):
        entry_shift, own_shift = (int(width * (n * GOLDEN_RATIO % 1)) for n in (2 * k, 2 * k + 1))
        sizes = np.array([option.bytes for option in layer.options], np.int64)
        own_bins = (sizes + own_shift) // width
        best = {r: {int(own_bins[o]): o for o in r} for r in set(layer.insertions)}  # options come by rising gain
        tried = tuple(tuple(best[r].values()) for r in layer.insertions)
        ranks = np.array([option.rank for option in layer.options])
        entry_bins, skip_bins = (
            (np.array(paid, np.int64) + entry_shift) // width for paid in (layer.entry_bytes, layer.skip_bytes)
        )
        found.append(BinnedLayer(layer, entry_bins, skip_bins, own_bins, ranks, sizes, tried))
    return found


def fill_table(layers: Sequence[BinnedLayer], limit: int) -> tuple[list[list[Row]], np.ndarray]:
    """Return a row per location and state up to bin `limit`, and the final values, from the last row's start on.

    Unreachable values are negative; all back-pointers in them are 0, since the rows hold them.
    """
    pointers = BackPointers.of(layers)
    known = [(0, np.zeros(1, np.int64))]  # per state: first bin, and the values from there on
    table = [[Row(0, np.zeros(1, np.uint8))]]
    for binned in layers:
        known = [
            best_values(moves_into(state, known, binned, limit, pointers), limit)
            for state in range(binned.layer.states)
        ]
        table.append([Row(start, pointers.take_from(values)) for start, values in known])
    return table, known[0][1]


def moves_into(
    state: int, known: Sequence[tuple[int, np.ndarray]], binned: BinnedLayer, limit: int, pointers: BackPointers
) -> list[Move]:
    """Return the steps over a layer into one state; `known` holds the first bin and the values of each source.

    Where several sources can be inserted from, their maximum is taken first, and the options are tried on that.
    """
    layer, entry_bins, skip_bins = binned.layer, binned.entry_bins.tolist(), binned.skip_bins.tolist()
    moves = [
        (known[s][0] + skip_bins[s], known[s][1], pointers.pack(layer.options[0].gain, 0, s))
        for s, target in enumerate(layer.skips)
        if target == state
    ]
    groups: dict[tuple[int, ...], list[Move]] = {}
    for s, target in enumerate(layer.inserts):
        if target == state:
            entry = (known[s][0] + entry_bins[s], known[s][1], pointers.pack(0, 0, s))
            groups.setdefault(binned.tried[s], []).append(entry)
    for tried, entries in groups.items():
        merged = [(*best_values(entries, limit), 0)] if len(entries) > 1 else entries
        for start, values, source in merged:
            for option in tried:
                step = pointers.pack(layer.options[option].gain, option, 0) + source
                moves.append((start + int(binned.own_bins[option]), values, step))
    return moves


def best_values(moves: Sequence[Move], limit: int) -> tuple[int, np.ndarray]:
    """Return the first bin, and the largest value over all moves in each bin from there on, up to `limit`."""
    if len(moves) == 1:
        ((start, values, step),) = moves
        return start, values[: max(0, limit + 1 - start)] + step
    first = min(start for start, _, _ in moves)
    size = max(min(start + len(values), limit + 1) for start, values, _ in moves) - first
    best = np.full(max(size, 0), UNREACHABLE)
    scratch = np.empty_like(best)
    for start, values, step in moves:
        length = min(len(values), limit + 1 - start)
        if length > 0:
            grown = np.add(values[:length], step, out=scratch[:length])
            here = best[start - first : start - first + length]
            np.maximum(here, grown, out=here)
    return first, best


def backtrack(
    layers: Sequence[BinnedLayer], table: Sequence[Sequence[Row]], bins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the strategies that end in `bins`: ranks, (bins, locations), and exact prices in bytes, (bins,)."""
    pointers = BackPointers.of(layers)
    ranks = np.zeros((len(bins), len(layers)), np.int64)
    price, state, left = np.zeros_like(bins), np.zeros_like(bins), bins.copy()
    for k in range(len(layers) - 1, -1, -1):
        binned = layers[k]
        found = np.zeros(len(bins), np.int64)
        for t, row in enumerate(table[k + 1]):
            here = np.flatnonzero(state == t)
            if len(here):
                found[here] = row.pointers[left[here] - row.start]
        option, source = pointers.unpack(found)
        inserted, paid = option >= binned.layer.may_skip, (binned.layer.entry_bytes, binned.layer.skip_bytes)
        ranks[:, k] = binned.ranks[option]
        price += binned.bytes[option] + np.where(inserted, *(np.array(p)[source] for p in paid))
        left -= np.where(inserted, binned.own_bins[option] + binned.entry_bins[source], binned.skip_bins[source])
        state = source
    return ranks, price
