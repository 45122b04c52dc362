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

import numpy as np

from taskit.scheduler.options import Option

MAX_STATES = 32  # per location; sequential networks and encoder-decoders need fewer than ten


@dataclass(frozen=True, slots=True)
class Layer:
    """All steps over one location.

    Inserting it from state s pays `entry_bytes[s]` for storages, then the bytes of its option.
    `skips[s]` and `inserts[s]` are the states that skipping it and inserting it lead to.
    """

    options: tuple[Option, ...]  # the first is SKIP where the location may be left out
    entry_bytes: tuple[int, ...]
    skips: tuple[int, ...]
    inserts: tuple[int, ...]
    states: int  # after the location

    @property
    def may_skip(self) -> bool:
        return self.options[0].rank == 0


@dataclass(frozen=True, slots=True)
class Trellis:
    """One state before the first layer, one after the last."""

    layers: tuple[Layer, ...]
    exact: bool  # False where states were merged: a path's price is then an upper bound of M(s) - M(0)


def build_trellis(needs: np.ndarray, sizes: np.ndarray, options: Sequence[Sequence[Option]]) -> Trellis:
    """Enumerate the reachable states; `needs` and `sizes` as in `Problem`, `options` per location."""
    later = np.zeros_like(needs)  # later[k]: the storages that a location after k needs
    later[:-1] = np.logical_or.accumulate(needs[:0:-1], axis=0)[::-1]
    paid = np.zeros((1, len(sizes)), bool)
    layers, exact = [], True
    for k, choices in enumerate(options):
        entry_bytes = ((needs[k] & ~paid) @ sizes).tolist()
        sources = len(paid) if choices[0].rank == 0 else 0  # of skips
        entries = len(paid) if choices[-1].rank > 0 else 0  # of insertions: none where no rank is worth anything
        after, targets = _distinct(np.concatenate([paid[:sources], (paid | needs[k])[:entries]]) & later[k])
        if len(after) > MAX_STATES:
            after, merged = _forget_cheapest(after, sizes)
            targets, exact = [merged[t] for t in targets], False
        layers.append(
            Layer(tuple(choices), tuple(entry_bytes), tuple(targets[:sources]), tuple(targets[sources:]), len(after))
        )
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
