"""Compact blocks of every location for every gamma, by the sensitivity of single entries (CDRA-SPT Eqs. 3 and 7)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskit.methods.method import MethodContext

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows (outputs) and columns (inputs) of a matrix, each as the bits of a whole number, the first lowest."""

    rows: int
    columns: int

    @classmethod
    def of(cls, rows: Iterable[int], columns: Iterable[int]) -> "Block":
        return cls(sum(1 << i for i in rows), sum(1 << i for i in columns))

    @property
    def row_count(self) -> int:
        return self.rows.bit_count()

    @property
    def column_count(self) -> int:
        return self.columns.bit_count()

    def to_json(self) -> dict[str, str]:
        """Hexadecimal, for lists of numbers would bury the plan."""
        return {"rows": f"{self.rows:x}", "columns": f"{self.columns:x}"}

    @classmethod
    def from_json(cls, value: Mapping[str, str]) -> "Block":
        return cls(int(value["rows"], 16), int(value["columns"], 16))


def indices(bits: int) -> list[int]:
    """The positions of the ones, ascending.

    >>> indices(0b1011)
    [0, 1, 3]
    """
    return [i for i, bit in enumerate(reversed(f"{bits:b}")) if bit == "1"]


@dataclass(frozen=True, slots=True)
class Granted:
    """What Eq. (7) grants one location at one gamma: a ``rank``, and the ``block`` that it is for."""

    rank: int
    block: Block


def eq7_rank(sensitive: int, rows: int, columns: int, out_features: int, in_features: int) -> int:
    """r of Eq. (7) for a block of ``rows`` x ``columns`` that holds all ``sensitive`` entries of the matrix.

    >>> eq7_rank(24626, 589, 284, 768, 768)
    8
    """
    if not sensitive:
        return 0
    return sensitive * rows * columns // ((rows + columns) * out_features * in_features)


def granted_blocks(context: MethodContext, gammas: Sequence[float]) -> dict[str, tuple[Granted, ...]]:
    """What each location is granted at each of ``gammas``, which ascend: sensitivity of the probe's rows."""
    import torch

    from taskit.transfer.sensitivity import entry_sensitivities

    names, probe = [place.name for place in context.places], context.probe_context
    found = entry_sensitivities(probe.model, probe.probes, probe.read_graph, names)
    sensitivity = {
        place.name: found.get(place.name, torch.zeros(place.out_features, place.in_features)).float()
        for place in context.places
    }
    limits = thresholds(sensitivity, gammas)
    return {name: tuple(granted(entries, limit) for limit in limits) for name, entries in sensitivity.items()}


def thresholds(sensitivity: "Mapping[str, Tensor]", gammas: Sequence[float]) -> list[float]:
    """The least sensitivity that is among the share gamma of the largest of all locations, for each gamma."""
    import torch

    entries = torch.cat([one.flatten() for one in sensitivity.values()]).sort(descending=True).values
    return [float(entries[max(1, min(len(entries), round(gamma * len(entries)))) - 1]) for gamma in gammas]


def granted(entries: "Tensor", limit: float) -> Granted:
    """Block and rank of one matrix of sensitivities (out, in); an entry of 0 is never sensitive."""
    mask = (entries >= limit) & (entries > 0)
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    rank = eq7_rank(int(mask.sum()), len(rows), len(columns), *entries.shape)
    return Granted(rank, Block.of(rows, columns))
