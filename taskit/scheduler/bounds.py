"""Upper bounds: what no strategy of a trellis exceeds, at every budget at once.

Each byte is given a price and the budget dropped (Lagrange): the best path then falls out of one sweep, and with what
the budget's bytes are worth added, its value is a bound of every strategy within the budget, whatever the price.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from taskit.scheduler.states import NOWHERE
from taskit.scheduler.trellis import Trellis

PRICES = 48  # tried, evenly spaced in their logarithm
DECADES = 3.0  # to either side of the value of the whole per byte of the whole


def value_bounds(trellis: Trellis, budgets: Sequence[int], span_bytes: int) -> np.ndarray:
    """Return a bound of the gain, in quanta, within each of `budgets` (bytes above the empty strategy).

    `span_bytes` is the price of the largest strategy. The trellis has to be exact.
    """
    most = sum(max(option.gain for option in layer.options) for layer in trellis.layers)
    prices = np.logspace(-DECADES, DECADES, PRICES) * max(1, most) / max(1, span_bytes)
    free = np.array(budgets, float)[:, None]
    return (best_at(trellis, prices) + free * prices).min(axis=1)


def best_at(trellis: Trellis, prices: np.ndarray) -> np.ndarray:
    """Return the largest gain minus priced bytes over all paths, in quanta, at each of `prices` (quanta per byte)."""
    best = np.zeros((1, len(prices)))
    for sources, worth, starts in _steps(trellis, prices):
        best = np.maximum.reduceat(best[sources] + worth, starts)
    return best[0]


def _steps(trellis: Trellis, prices: np.ndarray) -> Iterator[tuple[list[int], np.ndarray, list[int]]]:
    """Per layer the steps by rising target: source, gain minus priced bytes, and where each target's steps begin.

    Of the options of one insertion only the best counts, so it is one step.
    """
    gains: list[int] = []  # of every group of options, one after the other
    sizes: list[int] = []
    groups: list[int] = []  # where each begins
    paid: list[int] = []  # per step
    group_of: list[int] = []
    layers = []
    for layer in trellis.layers:
        place: dict[range, int] = {}
        for tried in (range(1), *layer.insertions):
            if tried and tried not in place:
                place[tried] = len(groups)
                groups.append(len(gains))
                gains += [layer.options[o].gain for o in tried]
                sizes += [layer.options[o].bytes for o in tried]
        steps = [(t, s, layer.skip_bytes[s], place[range(1)]) for s, t in enumerate(layer.skips)]
        steps += [(t, s, layer.entry_bytes[s], place[layer.insertions[s]]) for s, t in enumerate(layer.inserts)]
        steps = sorted(step for step in steps if step[0] != NOWHERE)
        targets, sources, bytes_, chosen = zip(*steps, strict=True)
        layers.append((list(sources), [targets.index(t) for t in range(layer.states)]))
        paid += bytes_
        group_of += chosen
    own = np.maximum.reduceat(np.array(gains)[:, None] - np.outer(sizes, prices), groups)
    worth = own[group_of] - np.outer(paid, prices)
    first = 0
    for sources, starts in layers:
        yield sources, worth[first : first + len(sources)], starts
        first += len(sources)
