"""Exact search: per state the list of strategies that no other beats in bytes, parameters and value together."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskit.scheduler.trellis import Layer, Trellis

MAX_POINTS = 16_384  # per location; beyond it the bins are faster and as good
MAX_BOUNDED_POINTS = 2_048  # the same when parameters count too: the filter is slower, the lists are longer


@dataclass(frozen=True, slots=True)
class Points:
    """Undominated strategies by rising bytes: int64 arrays of shape (points,)."""

    bytes: np.ndarray
    parameters: np.ndarray  # all 0 where nothing bounds them
    value: np.ndarray
    option: np.ndarray  # index into the layer's options
    source: np.ndarray  # the state before
    parent: np.ndarray  # index into the Points of that state


def pareto_plans(
    trellis: Trellis, budgets: Sequence[int], max_parameters: int | None = None
) -> list[list[int] | None] | None:
    """Return the best choices, one per layer, a list per budget (bytes above the empty strategy), or None if the
    lists explode.

    The list of a budget that not even the forced locations fit in is None.
    """
    if not trellis.layers[-1].states:
        return [None for _ in budgets]
    table = [[Points(*(np.zeros(1, np.int64) for _ in range(6)))]]
    for layer in trellis.layers:
        table.append([_arrive(table[-1], layer, state, max_parameters) for state in range(layer.states)])
        limit = MAX_POINTS if max_parameters is None else MAX_BOUNDED_POINTS
        if sum(len(points.bytes) for points in table[-1]) > limit:
            return None
    final = table[-1][0]
    plans: list[list[int] | None] = []
    for budget in budgets:
        within = int(np.searchsorted(final.bytes, budget, side="right"))
        # of equals the first: fewest bytes
        plans.append(_backtrack(trellis, table, int(final.value[:within].argmax())) if within else None)
    return plans


def _arrive(before: Sequence[Points], layer: Layer, state: int, max_parameters: int | None) -> Points:
    """Extend the lists before the layer along all steps into `state` and drop what is dominated."""
    steps = [(0, s, layer.skip_bytes[s]) for s, target in enumerate(layer.skips) if target == state]
    inserts = [(s, layer.entry_bytes[s]) for s, target in enumerate(layer.inserts) if target == state]
    options = range(layer.may_skip, len(layer.options))
    steps += [(o, s, entry) for o in options for s, entry in inserts if o in layer.insertions[s]]
    grown = []
    for o, s, entry in reversed(steps):  # the preferred step first: it survives among equals
        points, option = before[s], layer.options[o]
        cost = 0 if max_parameters is None else option.parameters
        parent = np.arange(len(points.bytes))
        grown.append(
            (
                points.bytes + entry + option.bytes,
                points.parameters + cost,
                points.value + option.gain,
                np.full_like(parent, o),
                np.full_like(parent, s),
                parent,
            )
        )
    columns = [np.concatenate(column) for column in zip(*grown, strict=True)]
    kept = _undominated(*columns[:3]) if max_parameters is None else _undominated_within(max_parameters, *columns[:3])
    return Points(*(column[kept] for column in columns))


def _undominated(size: np.ndarray, _: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the indices, by rising bytes, of the points that no other beats in bytes and value."""
    rising = np.argsort(size, kind="stable")
    ordered = value[rising]
    rising = rising[np.append(True, ordered[1:] > np.maximum.accumulate(ordered)[:-1])]
    return rising[np.append(np.diff(size[rising]) > 0, True)]  # of equal bytes only the most valuable


def _undominated_within(
    max_parameters: int, size: np.ndarray, parameters: np.ndarray, value: np.ndarray
) -> np.ndarray:
    """The same with parameters as a third coordinate, and without points of more than `max_parameters`."""
    kept: list[int] = []
    stair: list[int] = []  # rising parameters of the points so far that no other beats in parameters and value
    values: list[int] = []  # their values, rising too
    order = np.lexsort((-value, parameters, size))
    for index in order[parameters[order] <= max_parameters].tolist():
        cost, gain = int(parameters[index]), int(value[index])
        cheaper = bisect_right(stair, cost)
        if cheaper and values[cheaper - 1] >= gain:
            continue
        first, last = bisect_left(stair, cost), bisect_right(values, gain)
        stair[first : max(first, last)] = [cost]
        values[first : max(first, last)] = [gain]
        kept.append(index)
    return np.array(kept, np.int64)


def _backtrack(trellis: Trellis, table: Sequence[Sequence[Points]], index: int) -> list[int]:
    ranks, state = [], 0
    for k in range(len(trellis.layers) - 1, -1, -1):
        points = table[k + 1][state]
        ranks.append(trellis.layers[k].options[int(points.option[index])].rank)
        state, index = int(points.source[index]), int(points.parent[index])
    return ranks[::-1]
