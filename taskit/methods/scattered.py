"""A matrix that is zero outside some of its rows, or outside some of its columns."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
