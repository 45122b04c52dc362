"""Rules for operators on meta tensors that PyTorch lacks or computes slowly: result shapes, and scratch bytes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

aten: Any = torch.ops.aten


def _grouped_mm(left: Tensor, right: Tensor, offs: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """Products of groups of rows; PyTorch's own rule takes bfloat16 only, its kernels float32 and float16 too."""
    groups = [] if offs is None else [offs.shape[0]] if left.dim() == right.dim() == 2 else []
    batch = [left.shape[0]] if left.dim() == right.dim() == 3 else groups
    return left.new_empty([*batch, left.shape[-2], right.shape[-1]])


def _in_place(*_: Any, **__: Any) -> None:
    """Changes its arguments in place, and returns nothing."""


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


# What to call instead of an operator on meta tensors; bitsandbytes' are added by `add_bitsandbytes_rules`.
RULES: dict[Any, Callable[..., Any]] = {
    aten._grouped_mm.default: _grouped_mm,
    aten._fused_sgd_.default: _in_place,
    aten._fused_sgd_.tensor_lr: _in_place,
    aten.linalg_vector_norm.default: partial(_vector_norm, aten.linalg_vector_norm.default),
}
_ELEMENTWISE = (aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.pow.Tensor_Scalar, aten.neg.default)
RULES |= {op: partial(_elementwise, op) for op in (*_ELEMENTWISE, aten.rsqrt.default, aten.silu.default)}
# Bytes that an operator needs beside its results while it runs, from its arguments.
SCRATCH: dict[Any, Callable[..., int]] = {}
