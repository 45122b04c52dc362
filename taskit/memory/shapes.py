"""What PyTorch does not know of a few operators on meta tensors: their shapes, and what they need meanwhile."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
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


def _quantize_rows(rows: Tensor, *_: float) -> tuple[Tensor, Tensor, None]:
    """Eight bits and a scale for each row; how many columns are outliers only numbers can tell, few in any case."""
    scales = rows.new_empty(rows.numel() // rows.shape[-1], dtype=torch.float32)
    return torch.empty_like(rows, dtype=torch.int8), scales, None


def _elementwise(op: Any, *args: Any, **kwargs: Any) -> Tensor:
    """PyTorch's own rules for these are Python of a millisecond; the common case needs none of it.

    That is: the result looks like one of the operands, which is contiguous, and the other one is spread over it.
    """
    operands = [value for value in args if isinstance(value, Tensor)]
    like = max(operands, key=Tensor.numel)
    shape = torch.broadcast_shapes(*(t.shape for t in operands))
    kept = torch.result_type(*operands) if len(operands) == 2 else like.dtype
    simple = like.shape == shape and like.is_contiguous() and like.dtype == kept and like.is_floating_point()
    return torch.empty_like(like) if simple else op(*args, **kwargs)


def _vector_norm(op: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return op(x, *args, **kwargs) if len(args) > 1 or kwargs else x.new_empty(())


def _unpacked(
    rows: Tensor,
    _packed: Tensor,
    shape: Sequence[int],
    _scales: Tensor,
    _block: int,
    _kind: str,
    _bias: Tensor | None = None,
    packed_scales: Tensor | None = None,
    *_: Any,
) -> int:
    """Bytes of what a product with 4-bit weights unpacks: the weight (out, in) in the dtype of the rows, and its
    scales in float32 under double quantisation."""
    scales = 0 if packed_scales is None else 4 * packed_scales.numel()
    return prod(shape) * rows.element_size() + scales


# What to call in the place of an operator on meta tensors.
RULES: dict[Any, Callable[..., Any]] = {
    aten._grouped_mm.default: _grouped_mm,
    aten._fused_sgd_.default: _in_place,
    aten._fused_sgd_.tensor_lr: _in_place,
    aten.linalg_vector_norm.default: partial(_vector_norm, aten.linalg_vector_norm.default),
}
_ELEMENTWISE = (aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.pow.Tensor_Scalar, aten.neg.default)
RULES |= {op: partial(_elementwise, op) for op in (*_ELEMENTWISE, aten.rsqrt.default, aten.silu.default)}
# Bytes that an operator needs beside its results while it runs.
SCRATCH: dict[Any, Callable[..., int]] = {}


def with_bitsandbytes() -> None:
    """Add the rules of bitsandbytes' operators, which exist once it is imported."""
    import bitsandbytes  # noqa: F401

    own: Any = torch.ops.bitsandbytes
    RULES[own.int8_vectorwise_quant.default] = _quantize_rows
    SCRATCH[own.gemm_4bit.default] = _unpacked
