"""Exact search: per state the list of strategies that no other beats in both bytes and value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskit.scheduler.trellis import Edges, Trellis

MAX_POINTS = 16_384  # per location; beyond it the bins are faster and as good


@dataclass(frozen=True, slots=True)
class Points:
    """Undominated strategies by rising bytes and value: int64 arrays of shape (points,)."""

    bytes: np.ndarray
    value: np.ndarray
    edge: np.ndarray  # index into the state's Edges
    parent: np.ndarray  # index into the Points of that edge's source


def pareto_plans(trellis: Trellis, budgets: Sequence[int]) -> list[list[int]] | None:
    """Return the best ranks, one list per budget (bytes above the empty strategy), or None if the lists explode."""
    start = Points(*(np.zeros(1, np.int64) for _ in range(4)))
    table = [[start]]
    for layer in trellis.layers:
        table.append([_merge(table[-1], edges) for edges in layer])
        if sum(len(points.bytes) for points in table[-1]) > MAX_POINTS:
            return None
    best = np.searchsorted(table[-1][0].bytes, np.array(budgets), side="right") - 1
    return [_backtrack(trellis, table, int(index)) for index in best]


def _merge(sources: Sequence[Points], edges: Edges) -> Points:
    """Extend the sources along all edges into one state and drop what is dominated."""
    order = range(len(edges.source) - 1, -1, -1)  # the preferred edge first: it survives among equals
    fronts = [sources[s] for s in edges.source]
    grown = [fronts[e].bytes + edges.bytes[e] for e in order]
    bytes_ = np.concatenate(grown)
    value = np.concatenate([fronts[e].value + edges.gain[e] for e in order])
    edge = np.repeat(np.array(order), [len(part) for part in grown])
    parent = np.concatenate([np.arange(len(part)) for part in grown])
    rising = np.argsort(bytes_, kind="stable")
    rising = rising[_records(value[rising])]
    last = np.append(np.diff(bytes_[rising]) > 0, True)  # of equal bytes only the most valuable
    rising = rising[last]
    return Points(bytes_[rising], value[rising], edge[rising], parent[rising])


def _records(values: np.ndarray) -> np.ndarray:
    """Return which values exceed all before them, bool of the same shape."""
    return np.append(True, values[1:] > np.maximum.accumulate(values)[:-1])


def _backtrack(trellis: Trellis, table: Sequence[Sequence[Points]], index: int) -> list[int]:
    ranks, state = [], 0
    for k in range(len(trellis.layers) - 1, -1, -1):
        points, edges = table[k + 1][state], trellis.layers[k][state]
        edge, index = points.edge[index], points.parent[index]
        ranks.append(int(edges.rank[edge]))
        state = int(edges.source[edge])
    return ranks[::-1]
