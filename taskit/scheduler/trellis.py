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
from dataclasses import dataclass, replace

import numpy as np

from taskit.scheduler.options import Option
from taskit.scheduler.problem import BlockChoice

MAX_STATES = 32  # per location; sequential networks and encoder-decoders need fewer than ten
NOWHERE = -1  # the target of a step that would end with blocks recomputed and nothing inserted


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
    """One state before the first layer, one after the last."""

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
    columns = _Columns.of(needs, sizes, options, home, inputs, blocks)
    paid = np.zeros((1, len(columns.sizes)), bool)
    layers, exact = [], True
    for position, entry in enumerate(columns.entries):
        if entry < len(needs):
            skip_bytes, skipped = np.zeros(len(paid), int), paid
            entry_bytes, inserted = columns.insert(entry, paid)
        else:
            skip_bytes, skipped, entry_bytes, inserted = columns.decide(entry - len(needs), paid)
        choices, insertions = columns.choices(entry, options[entry], paid)
        sources = len(paid) if choices[0].rank == 0 else 0  # of skips
        entries = len(paid) if choices[-1].rank > 0 else 0  # of insertions: none where no rank is worth anything
        rows = np.concatenate([skipped[:sources], inserted[:entries]])
        targets = np.full(len(rows), NOWHERE)
        allowed = np.flatnonzero(rows[:, -1] | (position + 1 < len(columns.entries) or not blocks))
        after, index = _distinct(rows[allowed] & (columns.until > position))
        if len(after) > MAX_STATES:
            after, merged = _forget_cheapest(after, columns)
            index, exact = [merged[t] for t in index], False
        targets[allowed] = index
        skips, inserts = tuple(targets[:sources].tolist()), tuple(targets[sources:].tolist())
        prices = tuple(entry_bytes.tolist()), tuple(skip_bytes.tolist())
        layers.append(Layer(choices, *prices, skips, inserts, insertions, len(after)))
        paid = after
    return Trellis(tuple(layers), columns.entries, exact)


@dataclass(frozen=True, slots=True)
class _Columns:
    """What a state says, bool each: the storages; with blocks, also which is recomputed and if anything is inserted.

    Args:
        needs: which columns an insertion makes true, bool (locations, columns).
        sizes: bytes to pay where that is new, int64 (columns,).
        home, inputs: as in `Problem`, for the columns; the marks belong to no block.
        decided: whether a storage is paid at first need, bool (columns,); grows with the decisions.
        until: the last layer that reads a column, int (columns,).
        entries: as in `Trellis`.
        blocks: as in `Problem`.
        marks: per location the column that says if its block is recomputed, -1 where its bytes do not depend on it.
    """

    needs: np.ndarray
    sizes: np.ndarray
    home: np.ndarray
    inputs: np.ndarray
    decided: np.ndarray
    until: np.ndarray
    entries: tuple[int, ...]
    blocks: Sequence[BlockChoice]
    marks: tuple[int, ...]

    @classmethod
    def of(
        cls,
        needs: np.ndarray,
        sizes: np.ndarray,
        options: Sequence[Sequence[Option]],
        home: np.ndarray,
        inputs: np.ndarray,
        blocks: Sequence[BlockChoice],
    ) -> "_Columns":
        n, storages, extra = *needs.shape, len(blocks) + 1
        decisions = [(block.first, 0, n + b) for b, block in enumerate(blocks)]
        entries = tuple(entry for *_, entry in sorted([*decisions, *((k, 1, k) for k in range(n))]))
        layer_of = np.argsort(entries)
        marks = [-1] * n
        until = np.append(np.where(needs, layer_of[:n, None], -1).max(axis=0), np.full(extra, -1))
        for b, block in enumerate(blocks):
            inside = range(block.first, block.end)
            until[:storages][home == b] = np.maximum(until[:storages][home == b], layer_of[n + b])
            if any(option.spared for k in inside for option in options[k]):
                until[storages + b] = layer_of[block.end - 1]
                marks[block.first : block.end] = [storages + b] * len(inside)
        until[-1] = len(entries) - 1 if blocks else -1
        anything = np.ones((n, 1), bool)
        return cls(
            needs=np.hstack([needs, np.zeros((n, len(blocks)), bool), anything]),
            sizes=np.append(sizes, np.zeros(extra, np.int64)),
            home=np.append(home, np.full(extra, -1)),
            inputs=np.append(inputs, np.zeros(extra, bool)),
            decided=np.append(home < 0, np.ones(extra, bool)),
            until=until,
            entries=entries,
            blocks=blocks,
            marks=tuple(marks),
        )

    def insert(self, k: int, paid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what inserting location k pays for storages, from every state, and the states that it leads to."""
        return (self.needs[k] & ~paid) @ (self.sizes * self.decided), paid | self.needs[k]

    def decide(self, b: int, paid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the same for keeping block b, then for recomputing it; what is not kept then counts as paid."""
        inside, held = (self.home == b) & ~self.inputs, (self.home == b) & self.inputs
        self.decided[self.home == b] = True
        recomputed = paid | inside
        recomputed[:, len(self.sizes) - 1 - len(self.blocks) + b] = True
        return (paid & inside) @ self.sizes, paid | held, (paid & held) @ self.sizes, recomputed

    def choices(
        self, entry: int, options: Sequence[Option], paid: np.ndarray
    ) -> tuple[tuple[Option, ...], tuple[range, ...]]:
        """Return the options of a plan's entry, and from each state those that insert.

        Where bytes depend on whether the block is recomputed, the options for that come after the others.
        """
        may_skip, mark = options[0].rank == 0, self.marks[entry] if entry < len(self.needs) else -1
        kept = range(may_skip, len(options))
        if mark < 0:
            return tuple(options), (kept,) * len(paid)
        recomputed = [replace(option, bytes=option.bytes - option.spared) for option in options[may_skip:]]
        ranges = kept, range(len(options), len(options) + len(recomputed))
        return (*options, *recomputed), tuple(ranges[bit] for bit in paid[:, mark].tolist())


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the distinct rows, in order of appearance, and for each row its index among them."""
    first: dict[bytes, int] = {}
    index = [first.setdefault(row.tobytes(), len(first)) for row in rows]
    return rows[[index.index(t) for t in range(len(first))]], index


def _forget_cheapest(states: np.ndarray, columns: _Columns) -> tuple[np.ndarray, list[int]]:
    """Merge states by forgetting that their cheapest storages are paid: they are paid again, never too little.

    Those of a block that is still to be decided are wanted from then on, which is never too little either.
    """
    states = states.copy()
    storages = len(columns.sizes) - 1 - len(columns.blocks)
    contested = np.flatnonzero((states.any(axis=0) & ~states.all(axis=0))[:storages])
    for storage in contested[np.argsort(columns.sizes[contested], kind="stable")]:
        states[:, storage] = ~columns.decided[storage]
        merged, index = _distinct(states)
        if len(merged) <= MAX_STATES:
            break
    return merged, index
