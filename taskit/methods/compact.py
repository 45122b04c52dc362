"""The parametrization of CDRA: lora_A (r, k_) and lora_B (d_, r) of a compact block, scattered into its
columns and rows.

Collapsed, the columns of lora_A and the rows of lora_B outside the block are zero.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from taskit.errors import PlanError
from taskit.methods.blocks import Block, indices
from taskit.methods.method import inserted
from taskit.step.parametrization import Parametrization, Ranks, lora_pair, plain_again

if TYPE_CHECKING:
    from taskit.backbone.target_modules import Location


@dataclass(frozen=True, slots=True)
class Compact(Parametrization):
    """``blocks`` by location."""

    blocks: Mapping[str, Block]

    def insert(self, model: Any, ranks: Ranks) -> None:
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


class Scattered(nn.Module):
    """A parametrisation: a compact matrix trains, and ``indices`` say where along ``dim``, of ``size``, it goes.

    From a whole matrix it starts with those rows or columns, times ``factor``.
    """

    indices: Tensor

    def __init__(
        self, dim: int, indices: Sequence[int], size: int, device: torch.device, factor: float = 1.0
    ) -> None:
        super().__init__()
        self.dim, self.size, self.factor = dim, size, factor
        self.register_buffer("indices", torch.tensor(indices, device=device), persistent=False)

    def forward(self, compact: Tensor) -> Tensor:
        shape = list(compact.shape)
        shape[self.dim] = self.size
        return compact.new_zeros(shape).index_copy(self.dim, self.indices, compact)

    def right_inverse(self, whole: Tensor) -> Tensor:
        return whole.index_select(self.dim, self.indices) * self.factor
