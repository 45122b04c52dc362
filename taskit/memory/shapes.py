"""Shape rules for the few operators that PyTorch has none for on meta tensors, or one that is too narrow."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten: Any = torch.ops.aten


def _grouped_mm(left: Tensor, right: Tensor, offs: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """Products of groups of rows; PyTorch's own rule knows bfloat16 only, its kernels float32 and float16 too."""
    groups = [] if offs is None else [offs.shape[0]] if left.dim() == right.dim() == 2 else []
    batch = [left.shape[0]] if left.dim() == right.dim() == 3 else groups
    return left.new_empty([*batch, left.shape[-2], right.shape[-1]])


def _in_place(*_: Any, **__: Any) -> None:
    """Changes what it is given, and makes nothing."""


def _quantize_rows(rows: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor, None]:
    """Eight bits and a scale for each row; how many columns are outliers only numbers can tell, few in any case."""
    scales = rows.new_empty(rows.numel() // rows.shape[-1], dtype=torch.float32)
    return torch.empty_like(rows, dtype=torch.int8), scales, None


RULES: dict[Any, Callable[..., Any]] = {
    aten._grouped_mm.default: _grouped_mm,
    aten._fused_sgd_.default: _in_place,
    aten._fused_sgd_.tensor_lr: _in_place,
}
