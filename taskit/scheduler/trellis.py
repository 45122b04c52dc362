"""The strategies as paths: location by location, from state to state, each step with its exact price.

A state is the set of *open* storages (needed by a location still to come) that are paid already. In a sequential
network all that flows on from an inserted location is needed by everything before it, so after the earliest
insertion every pass-through storage is paid: "nothing yet" and "everything" are the only states at a block's border,
and inside a block there is one more for each input that several locations share (q, k, v; gate, up). One sweep
therefore serves all earliest locations, in O(|K| |R| U) where Algorithm 1 takes O(|K|^2 |R| U), and the price of a
path is exactly M(s) - M(0). Any other network (encoder-decoder, parallel branches) only has more states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from taskit.memory.profile import MemoryProfile

MAX_STATES = 32  # per location; sequential networks and encoder-decoders need fewer than ten


@dataclass(frozen=True, slots=True)
class Option:
    """One rank that a location may get: its own bytes and its value h(r) * lambda in whole quanta."""

    rank: int
    bytes: int
    gain: int


@dataclass(frozen=True, slots=True)
class Edges:
    """All ways into one state, as int64 arrays of shape (edges,); a later edge is preferred among equals."""

    source: np.ndarray
    rank: np.ndarray
    bytes: np.ndarray
    gain: np.ndarray


@dataclass(frozen=True, slots=True)
class Trellis:
    """`layers[k][t]` leads into state t after location k; one state before the first layer, one after the last."""

    layers: tuple[tuple[Edges, ...], ...]
    exact: bool  # False where states were merged: a path's price is then an upper bound of M(s) - M(0)


def coverage(profile: MemoryProfile) -> tuple[np.ndarray, np.ndarray]:
    """Return who needs what, bool of shape (locations, storages), and the storages' bytes, int64."""
    sizes = np.array([storage.bytes for storage in profile.storages], np.int64)
    readers = [len(storage.needed_by) for storage in profile.storages]
    rows = np.fromiter(chain.from_iterable(s.needed_by for s in profile.storages), np.intp, sum(readers))
    needs = np.zeros((len(profile.locations), len(sizes)), bool)
    needs[rows, np.repeat(np.arange(len(sizes)), readers)] = True
    return needs, sizes


def build_trellis(needs: np.ndarray, sizes: np.ndarray, options: Sequence[Sequence[Option]]) -> Trellis:
    """Enumerate the reachable states; `needs` and `sizes` as `coverage` returns them, `options` per location."""
    later = np.zeros_like(needs)  # later[k]: the storages that a location after k needs
    later[:-1] = np.logical_or.accumulate(needs[:0:-1], axis=0)[::-1]
    paid = np.zeros((1, len(sizes)), bool)
    layers, exact = [], True
    for k, choices in enumerate(options):
        unpaid_bytes = np.where(needs[k] & ~paid, sizes, 0).sum(axis=1).tolist()
        after, targets = _distinct(np.concatenate([paid, paid | needs[k]]) & later[k])
        if len(after) > MAX_STATES:
            after, merged = _forget_cheapest(after, sizes)
            targets, exact = [merged[t] for t in targets], False
        skips, inserts = targets[: len(paid)], targets[len(paid) :]
        ways: list[list[tuple[int, int, int, int]]] = [[] for _ in after]
        for source, target in enumerate(skips):
            ways[target].append((source, 0, 0, 0))
        for option in choices:
            for source, target in enumerate(inserts):
                ways[target].append((source, option.rank, unpaid_bytes[source] + option.bytes, option.gain))
        layers.append(tuple(Edges(*np.array(way, np.int64).T) for way in ways))
        paid = after
    return Trellis(tuple(layers), exact)


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the distinct rows, in order of appearance, and for each row its index among them."""
    first: dict[bytes, int] = {}
    index = [first.setdefault(row.tobytes(), len(first)) for row in rows]
    return rows[[index.index(t) for t in range(len(first))]], index


def _forget_cheapest(states: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Merge states by forgetting that their cheapest storages are paid: they are paid again, never too little."""
    states = states.copy()
    contested = np.flatnonzero(states.any(axis=0) & ~states.all(axis=0))
    for storage in contested[np.argsort(sizes[contested], kind="stable")]:
        states[:, storage] = False
        merged, index = _distinct(states)
        if len(merged) <= MAX_STATES:
            break
    return merged, index
