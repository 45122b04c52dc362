"""The memory profile: the training peak of every strategy, from one trace.

M(s) = M_con + M_w(s) + M_x(s) in the symbols of the TaskIT paper (Table 1): constant, module and activation bytes.
M_x is the sum over a *union*: a storage that several inserted locations need is kept once. All sizes are whole bytes.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from taskit.errors import PlanError


@dataclass(frozen=True, slots=True)
class Storage:
    """Activations saved for the backward pass, merged by who needs them.

    `needed_by` holds sorted location indices; the storage is kept if and only if one of them has rank > 0, and the
    recomputable block in which it is saved, where there is one, is not recomputed.
    """

    bytes: int
    needed_by: tuple[int, ...]
    block: int | None = None  # index into `MemoryProfile.recomputable`

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise PlanError(f"A storage has a negative size, {self.bytes} bytes; trace the memory profile again.")
        if not self.needed_by or any(a >= b for a, b in pairwise(self.needed_by)):
            raise PlanError(
                f"A storage names {self.needed_by} as the locations that need it, which is not a sorted set of "
                "at least one; trace the memory profile again."
            )


@dataclass(frozen=True, slots=True)
class RecomputableBlock:
    """A block whose inside need not be kept: its input is, and the backward pass computes the rest again.

    Args:
        name: path of the module in the backbone.
        first, last: its locations in the profile, both included.
        input_bytes: kept where the block is recomputed, if any location up to `last` has rank > 0.
    """

    name: str
    first: int
    last: int
    input_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryBreakdown:
    """The terms of M(s) in bytes; `peak_bytes` is their exact sum."""

    constant_bytes: int
    module_bytes: int
    activation_bytes: int
    transient_bytes: int

    @property
    def peak_bytes(self) -> int:
        return self.constant_bytes + self.module_bytes + self.activation_bytes + self.transient_bytes


@dataclass(frozen=True, slots=True)
class MemoryProfile:
    """Bytes of any strategy over |K| locations.

    Args:
        locations: names of the |K| candidate locations, in forward order.
        blocks: block index of each location, non-decreasing.
        constant_bytes: always there, M_con: frozen weights, the trained head with its optimizer state, the batch.
        rank_bytes: per location, bytes per unit of rank: weights, gradients, optimizer state, rank-sized activations.
        fixed_bytes: per location, bytes once it is inserted, whatever its rank.
        storages: saved activations and who needs them.
        transient_bytes: short-lived bytes on top of everything else at the peak.
        kept_rank_bytes: per location, the part of `rank_bytes` that a recomputed block does not keep: activations.
        recomputable: blocks that may be recomputed, in forward order; they share no location.

    Raises:
        PlanError: when the parts disagree in length, a size is negative or an index names no location.
    """

    locations: tuple[str, ...]
    blocks: tuple[int, ...]
    constant_bytes: int
    rank_bytes: tuple[int, ...]
    fixed_bytes: tuple[int, ...]
    storages: tuple[Storage, ...]
    transient_bytes: int
    kept_rank_bytes: tuple[int, ...] = ()
    recomputable: tuple[RecomputableBlock, ...] = ()

    def __post_init__(self) -> None:
        if not self.kept_rank_bytes:
            object.__setattr__(self, "kept_rank_bytes", (0,) * len(self.locations))
        for part in ("blocks", "rank_bytes", "fixed_bytes", "kept_rank_bytes"):
            self._check_length(part, getattr(self, part))
        if any(a > b for a, b in pairwise(self.blocks)):
            raise PlanError("The blocks of a memory profile decrease; list its locations in forward order.")
        if min(self.constant_bytes, self.transient_bytes, *self.rank_bytes, *self.fixed_bytes) < 0:
            raise PlanError("A memory profile holds a negative number of bytes; trace it again.")
        if any(s.needed_by[0] < 0 or s.needed_by[-1] >= len(self.locations) for s in self.storages):
            raise PlanError(
                f"A storage is needed by a location outside the {len(self.locations)} of its memory profile; "
                "trace the profile again."
            )

    def _check_length(self, part: str, values: Sequence[Any]) -> None:
        if len(values) != len(self.locations):
            raise PlanError(
                f"The {part} of a strategy or memory profile have {len(values)} entries for {len(self.locations)} "
                "locations; give exactly one per location."
            )

    def recomputing(self, blocks: Collection[int]) -> "MemoryProfile":
        """The same step where these of the `recomputable` blocks are recomputed; no choice is left in it."""
        inputs = [
            Storage(block.input_bytes, tuple(range(block.last + 1)))
            for i, block in enumerate(self.recomputable)
            if i in blocks and block.input_bytes
        ]
        kept = [replace(s, block=None) for s in self.storages if s.block is None or s.block not in blocks]
        freed = {k for i in blocks for k in range(self.recomputable[i].first, self.recomputable[i].last + 1)}
        rank_bytes = (
            size - self.kept_rank_bytes[k] if k in freed else size for k, size in enumerate(self.rank_bytes)
        )
        return replace(
            self,
            storages=(*kept, *inputs),
            rank_bytes=tuple(rank_bytes),
            kept_rank_bytes=(),
            recomputable=(),
        )

    def at_rows(self, rows: int, measured: int, more: "MemoryProfile", more_rows: int) -> "MemoryProfile":
        """The profile of ``rows``, on the line through this one, of ``measured`` rows, and that of ``more_rows``.

        Whatever a step makes grows by the same bytes with every further row.
        """

        def line(few: int, many: int) -> int:
            return max(few + (rows - measured) * (many - few) // (more_rows - measured), 0)

        def lines(few: Sequence[int], many: Sequence[int]) -> tuple[int, ...]:
            return tuple(line(a, b) for a, b in zip(few, many, strict=True))

        sizes = [{(s.needed_by, s.block): s.bytes for s in part.storages} for part in (self, more)]
        blocks = zip(self.recomputable, more.recomputable, strict=True)
        return replace(
            self,
            constant_bytes=line(self.constant_bytes, more.constant_bytes),
            rank_bytes=lines(self.rank_bytes, more.rank_bytes),
            fixed_bytes=lines(self.fixed_bytes, more.fixed_bytes),
            kept_rank_bytes=lines(self.kept_rank_bytes, more.kept_rank_bytes),
            storages=tuple(
                Storage(line(sizes[0].get(key, 0), sizes[1].get(key, 0)), *key)
                for key in sorted({*sizes[0], *sizes[1]}, key=str)
            ),
            transient_bytes=line(self.transient_bytes, more.transient_bytes),
            recomputable=tuple(replace(a, input_bytes=line(a.input_bytes, b.input_bytes)) for a, b in blocks),
        )

    def breakdown(self, ranks: Sequence[int]) -> MemoryBreakdown:
        """Split M(s) into its terms; `ranks` holds one rank per location, 0 = not inserted."""
        self._check_length("ranks", ranks)
        inserted = {k for k, rank in enumerate(ranks) if rank}
        if inserted and min(ranks) < 0:
            raise PlanError(f"The lowest rank is {min(ranks)}; give ranks of 0 (not inserted) or more.")
        return MemoryBreakdown(
            constant_bytes=self.constant_bytes,
            module_bytes=sum(self.fixed_bytes[k] + ranks[k] * self.rank_bytes[k] for k in inserted),
            activation_bytes=sum(s.bytes for s in self.storages if not inserted.isdisjoint(s.needed_by)),
            transient_bytes=self.transient_bytes,
        )

    def activations_by_block(self, ranks: Sequence[int]) -> tuple[int, ...]:
        """The activation bytes of `breakdown`, by the block after whose last location each storage is kept."""
        self._check_length("ranks", ranks)
        inserted = {k for k, rank in enumerate(ranks) if rank}
        found = [0] * (self.blocks[-1] + 1)
        for storage in self.storages:
            if not inserted.isdisjoint(storage.needed_by):
                found[self.blocks[storage.needed_by[-1]]] += storage.bytes
        return tuple(found)

    def bytes(self, ranks: Sequence[int]) -> int:
        """M(s): the peak in bytes of the strategy that gives `ranks[k]` to location k."""
        return self.breakdown(ranks).peak_bytes

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "MemoryProfile":
        """Rebuild a profile from `to_json`, also after a trip through a file (lists for tuples)."""
        storages = tuple(Storage(s["bytes"], tuple(s["needed_by"]), s.get("block")) for s in data["storages"])
        recomputable = tuple(RecomputableBlock(**one) for one in data.get("recomputable", ()))
        parts = ("locations", "blocks", "rank_bytes", "fixed_bytes", "kept_rank_bytes")
        lists = {part: tuple(data[part]) for part in parts if part in data}
        return cls(**{**data, **lists, "storages": storages, "recomputable": recomputable})
