"""The strategies as paths: location by location, from state to state, each step with its exact price.

A state is the set of *open* storages (needed by a location still to come) that are paid already. In a sequential
network all that flows on from an inserted location is needed by everything before it, so after the earliest
insertion every pass-through storage is paid: "nothing yet" and "everything" are the only states at a block's border,
and inside a block there is one more for each input that several locations share (q, k, v; gate, up). One sweep
therefore serves all earliest locations, in O(|K| |R| U) where Algorithm 1 takes O(|K|^2 |R| U), and the price of a
path is exactly M(s) - M(0). Any other network (encoder-decoder, parallel branches) only has more states.

Whether a block is recomputed is one more layer, before the first of its locations. Until then a state holds which
storages of the block, or its input, are *wanted* by what is inserted before it; the decision pays those of them that
it keeps, and counts what it does not keep as paid. So a block's inside knows the decision by what is paid, and where
rank-sized activations depend on it, by a mark of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskit.scheduler.options import Option
from taskit.scheduler.states import structure_of
from taskit.scheduler.storages import BlockChoice


@dataclass(frozen=True, slots=True)
class Layer:
    """All steps over one location, or over the decision about one block: there, to skip it is to keep its inside.

    Inserting it from state s pays `entry_bytes[s]` for storages, then the bytes of its option; skipping it pays
    `skip_bytes[s]`, which is 0 at locations. `skips[s]` and `inserts[s]` are the states that these lead to.
    """

    options: tuple[Option, ...]  # the first is SKIP where the location may be left out
    entry_bytes: tuple[int, ...]
    skip_bytes: tuple[int, ...]
    skips: tuple[int, ...]
    inserts: tuple[int, ...]
    insertions: tuple[range, ...]  # per state before: the options that insert from it
    states: int  # after the location

    @property
    def may_skip(self) -> bool:
        return self.options[0].rank == 0


@dataclass(frozen=True, slots=True)
class Trellis:
    """One state before the first layer, one after the last; none where something has to be inserted, but cannot."""

    layers: tuple[Layer, ...]
    entries: tuple[int, ...]  # per layer: the entry of a plan that it decides
    exact: bool  # False where states were merged: a path's price is then an upper bound of M(s) - M(0)


def build_trellis(
    needs: np.ndarray,
    sizes: np.ndarray,
    options: Sequence[Sequence[Option]],
    home: np.ndarray | None = None,
    inputs: np.ndarray | None = None,
    blocks: Sequence[BlockChoice] = (),
) -> Trellis:
    """Enumerate the reachable states; all arguments as in `Problem`, `options` per entry of a plan.

    Where blocks may be recomputed, no path is without an insertion.
    """
    home = np.full(len(sizes), -1) if home is None else home
    inputs = np.zeros(len(sizes), bool) if inputs is None else inputs
    shapes = tuple((len(found), not found[0].rank, any(o.spared for o in found)) for found in options)
    structure = structure_of(needs, sizes, shapes, home, inputs, [(block.first, block.end) for block in blocks])
    paid = (structure.pays @ sizes).tolist()
    layers, first = [], 0
    for entry, steps in zip(structure.entries, structure.layers, strict=True):
        found, middle = tuple(options[entry]), first + len(steps.insertions)
        end = middle + len(steps.insertions)
        if steps.recomputed:
            inserting = found[not found[0].rank :]
            found += tuple(Option(o.rank, o.bytes - o.spared, o.parameters, o.gain) for o in inserting)
        prices = tuple(paid[first:middle]), tuple(paid[middle:end])
        layers.append(Layer(found, *prices, steps.skips, steps.inserts, steps.insertions, steps.states))
        first = end
    return Trellis(tuple(layers), structure.entries, structure.exact)
