"""Upper bounds: what no strategy of a trellis exceeds, at every budget at once.

Each byte is given a price and the budget dropped (Lagrange): the best path then falls out of one sweep, and with what
the budget's bytes are worth added, its value is a bound of every strategy within the budget, whatever the price.
"""

from collections.abc import Sequence

import numpy as np

from taskit.scheduler.trellis import Trellis

PRICES = 96  # tried, evenly spaced in their logarithm
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
    best = [np.zeros(len(prices))]
    for layer in trellis.layers:
        own = np.array([[option.gain] for option in layer.options])
        own = own - np.array([[option.bytes] for option in layer.options]) * prices
        of_range = {tried: own[tried.start : tried.stop].max(axis=0) for tried in set(layer.insertions) if tried}
        steps = [(target, best[s] + own[0] - layer.skip_bytes[s] * prices) for s, target in enumerate(layer.skips)]
        steps += [
            (target, best[s] + of_range[layer.insertions[s]] - layer.entry_bytes[s] * prices)
            for s, target in enumerate(layer.inserts)
        ]
        best = [
            np.maximum.reduce([value for target, value in steps if target == state]) for state in range(layer.states)
        ]
    return best[0]
