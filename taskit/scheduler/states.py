"""Which states there are at every location, and which step leads from which to which; no bytes.

The states of a network are the same however many rows pass at once, so they are found once (`structure_of` remembers)
and priced for each memory profile (trellis.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MAX_STATES = 32  # per location; sequential networks and encoder-decoders need fewer than ten
NOWHERE = -1  # the target of a step that would end with blocks recomputed and nothing inserted

Shape = tuple[int, bool, bool]  # of an entry's options: how many, is the first to skip, do bytes depend on the block


@dataclass(frozen=True, slots=True)
class Steps:
    """All steps over one location or block, as in `Layer`; `recomputed` if other options follow for where it is."""

    skips: tuple[int, ...]
    inserts: tuple[int, ...]
    insertions: tuple[range, ...]
    recomputed: bool
    states: int


@dataclass(frozen=True, slots=True)
class Structure:
    """The steps of all layers; `pays` says which storages insertions, then skips, pay, layer by layer and by source.

    `entries` and `exact` are those of `Trellis`; `pays` is bool of shape (2 * sources of all layers, storages).
    """

    entries: tuple[int, ...]
    layers: tuple[Steps, ...]
    pays: np.ndarray
    exact: bool


def structure_of(
    needs: np.ndarray,
    sizes: np.ndarray,
    shapes: tuple[Shape, ...],
    home: np.ndarray,
    inputs: np.ndarray,
    blocks: Sequence[tuple[int, int]],
) -> Structure:
    """Return the structure of a problem; `blocks` holds first and end of each, the others are as in `Problem`.

    `sizes` only matter where there are more states than are tracked.
    """
    key = (needs.tobytes(), len(sizes), shapes, home.astype(np.int64).tobytes(), inputs.tobytes(), tuple(blocks))
    try:
        return _remembered(*key)
    except _TooManyStatesError:
        columns = _Columns.of(needs, shapes, home, inputs, blocks)
        return _connect(columns, shapes, np.argsort(sizes, kind="stable"))


class _TooManyStatesError(Exception):
    """They have to be merged, and which that are depends on the sizes."""


@lru_cache(maxsize=4)
def _remembered(
    needs: bytes,
    storages: int,
    shapes: tuple[Shape, ...],
    home: bytes,
    inputs: bytes,
    blocks: tuple[tuple[int, int], ...],
) -> Structure:
    n = len(shapes) - len(blocks)
    columns = _Columns.of(
        np.frombuffer(needs, bool).reshape(n, storages),
        shapes,
        np.frombuffer(home, np.int64),
        np.frombuffer(inputs, bool),
        blocks,
    )
    return _connect(columns, shapes, None)


def _connect(columns: "_Columns", shapes: tuple[Shape, ...], by_size: np.ndarray | None) -> Structure:
    """Go through the layers; where there are too many states, the storages to forget come in the order `by_size`."""
    paid = np.zeros((1, columns.needs.shape[1]), bool)
    layers, pays, exact = [], [], True
    for position, entry in enumerate(columns.entries):
        (skip_pays, skipped), (insert_pays, inserted) = columns.step(entry, paid)
        pays += [insert_pays, skip_pays]
        count, may_skip, _ = shapes[entry]
        sources = len(paid) if may_skip else 0  # of skips
        entries = len(paid) if count > may_skip else 0  # of insertions: none where no rank is worth anything
        rows = np.concatenate([skipped[:sources], inserted[:entries]])
        targets = np.full(len(rows), NOWHERE)
        allowed = slice(None)
        if columns.blocks and position + 1 == len(columns.entries):
            allowed = rows[:, -1]
        after, index = _distinct(rows[allowed] & (columns.until > position))
        if len(after) > MAX_STATES:
            if by_size is None:
                raise _TooManyStatesError
            after, merged = _forget_cheapest(after, by_size, columns.decided)
            index, exact = [merged[t] for t in index], False
        targets[allowed] = index
        insertions, recomputed = columns.insertions(entry, shapes[entry], paid)
        skips, inserts = tuple(targets[:sources].tolist()), tuple(targets[sources:].tolist())
        layers.append(Steps(skips, inserts, insertions, recomputed, len(after)))
        paid = after
    storages = len(columns.home) - len(columns.blocks) - 1
    return Structure(columns.entries, tuple(layers), np.concatenate(pays)[:, :storages], exact)


@dataclass(frozen=True, slots=True)
class _Columns:
    """What a state says, bool each: the storages; then a mark per block and whether anything is inserted.

    Args:
        needs: which columns an insertion makes true, bool (locations, columns).
        home, inputs: as in `Problem`, for the columns; the marks belong to no block.
        decided: whether a storage is paid at first need, bool (columns,); grows with the decisions.
        until: the last layer that reads a column, int (columns,).
        entries: as in `Trellis`.
        blocks: first and end of each.
        marks: per location the column that says if its block is recomputed, -1 where its bytes do not depend on it.
    """

    needs: np.ndarray
    home: np.ndarray
    inputs: np.ndarray
    decided: np.ndarray
    until: np.ndarray
    entries: tuple[int, ...]
    blocks: Sequence[tuple[int, int]]
    marks: tuple[int, ...]

    @classmethod
    def of(
        cls,
        needs: np.ndarray,
        shapes: Sequence[Shape],
        home: np.ndarray,
        inputs: np.ndarray,
        blocks: Sequence[tuple[int, int]],
    ) -> "_Columns":
        n, storages = needs.shape
        extra = len(blocks) + 1
        decisions = [(first, 0, n + b) for b, (first, _) in enumerate(blocks)]
        entries = tuple(entry for *_, entry in sorted([*decisions, *((k, 1, k) for k in range(n))]))
        layer_of = np.argsort(entries)
        until = np.append(np.where(needs, layer_of[:n, None], -1).max(axis=0), np.full(extra, -1))
        marks = [-1] * n
        for b, (first, end) in enumerate(blocks):
            until[:storages][home == b] = np.maximum(until[:storages][home == b], layer_of[n + b])
            if any(depends for *_, depends in shapes[first:end]):
                until[storages + b] = layer_of[end - 1]
                marks[first:end] = [storages + b] * (end - first)
        until[-1] = len(entries) - 1 if blocks else -1
        return cls(
            needs=np.hstack([needs, np.zeros((n, len(blocks)), bool), np.ones((n, 1), bool)]),
            home=np.append(home, np.full(extra, -1)),
            inputs=np.append(inputs, np.zeros(extra, bool)),
            decided=np.append(home < 0, np.ones(extra, bool)),
            until=until,
            entries=entries,
            blocks=blocks,
            marks=tuple(marks),
        )

    def step(
        self, entry: int, paid: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Return what skipping an entry pays from every state and the states after, then the same for inserting it.

        What a block's decision does not keep counts as paid.
        """
        if entry < len(self.needs):
            needs = self.needs[entry]
            return (np.zeros_like(paid), paid), (needs & self.decided & ~paid, paid | needs)
        b = entry - len(self.needs)
        mine = self.home == b
        inside, held = mine & ~self.inputs, mine & self.inputs
        self.decided[mine] = True
        recomputed = paid | inside
        recomputed[:, b - len(self.blocks) - 1] = True  # the mark
        return (paid & inside, paid | held), (paid & held, recomputed)

    def insertions(self, entry: int, shape: Shape, paid: np.ndarray) -> tuple[tuple[range, ...], bool]:
        """Return the options that insert from each state, and whether they depend on the block's decision.

        The options for where the block is recomputed come after all the others.
        """
        count, may_skip, _ = shape
        kept, mark = range(may_skip, count), self.marks[entry] if entry < len(self.needs) else -1
        if mark < 0:
            return (kept,) * len(paid), False
        ranges = kept, range(count, 2 * count - may_skip)
        return tuple(ranges[int(bit)] for bit in paid[:, mark]), True


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the distinct rows, in order of appearance, and for each row its index among them."""
    first: dict[bytes, int] = {}
    index = [first.setdefault(row.tobytes(), len(first)) for row in rows]
    return rows[[index.index(t) for t in range(len(first))]], index


def _forget_cheapest(states: np.ndarray, by_size: np.ndarray, decided: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Merge states by forgetting that their cheapest storages are paid: they are paid again, never too little.

    Those of a block that is still to be decided count as wanted from then on, which is never too little either.
    """
    states = states.copy()
    contested = np.flatnonzero(states.any(axis=0) & ~states.all(axis=0))
    for storage in by_size[np.isin(by_size, contested)].tolist():
        states[:, storage] = not decided[storage]
        merged, index = _distinct(states)
        if len(merged) <= MAX_STATES:
            break
    return merged, index
