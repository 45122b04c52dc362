"""The form of CDRA: lora_A (r, k_) and lora_B (d_, r) of a compact block, scattered into the columns and rows it has.

Collapsed, the columns of lora_A and the rows of lora_B outside the block are zero.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskit.errors import PlanError
from taskit.methods.method import inserted
from taskit.step.parametrization import Parametrization, Ranks, lora_pair, plain_again

if TYPE_CHECKING:
    from taskit.backbone.target_modules import Location


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
class Compact(Parametrization):
    """``blocks`` by location."""

    blocks: Mapping[str, Block]

    def insert(self, model: Any, ranks: Ranks) -> None:
        from torch.nn.utils import parametrize

        from taskit.methods.scattered import Scattered

        for name in inserted(ranks):
            block = self._block(name)
            down, up = lora_pair(model, name)
            columns, rows = indices(block.columns), indices(block.rows)
            # PEFT draws lora_A by its width; so narrow a one starts as much larger
            larger = math.sqrt(down.in_features / len(columns))
            parametrize.register_parametrization(
                down, "weight", Scattered(1, columns, down.in_features, down.weight.device, larger)
            )
            parametrize.register_parametrization(up, "weight", Scattered(0, rows, up.out_features, up.weight.device))

    def parameters(self, places: "Sequence[Location]", ranks: Ranks) -> int:  # noqa: ARG002
        blocks = ((rank, self._block(name)) for name, rank in ranks.items() if rank)
        return sum(rank * (block.row_count + block.column_count) for rank, block in blocks)

    def collapse(self, model: Any) -> float:
        plain_again(model)
        return 0.0

    def _block(self, name: str) -> Block:
        block = self.blocks.get(name)
        if block is None or not (block.rows and block.columns):
            raise PlanError(f"The plan has no compact block for {name}; set its rank to 0, or plan again.")
        return block
