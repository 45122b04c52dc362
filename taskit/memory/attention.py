"""Dispatch attention on meta tensors to the kernel that would run on the training device.

Left to itself, PyTorch decomposes scaled_dot_product_attention on meta tensors into the math kernel, which
keeps the attention matrix; the fused kernels of a CPU or a GPU keep four small tensors instead.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

MATH, FLASH, EFFICIENT, CUDNN = 0, 1, 2, 3  # torch.nn.attention.SDPBackend
aten: Any = torch.ops.aten


def attend(
    device: torch.device,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What ``F.scaled_dot_product_attention`` does with these tensors on ``device``, for tensors on meta."""
    options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    layouts = tuple(map(_layout_of, (query, key, value)))
    kernel = _kernel(device, layouts, _layout_of(attn_mask), tuple(options.items()))
    if kernel == MATH:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask, **options)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = _additive(attn_mask, query)
    if device.type == "cpu":
        kept = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )
        return kept[0]
    learns = any(t.requires_grad for t in (query, key, value))
    if kernel == FLASH:
        padded = [_pad(t, 8) for t in (query, key, value)]
        scale = scale or query.shape[-1] ** -0.5
        kept = aten._scaled_dot_product_flash_attention(*padded, dropout_p, is_causal, False, scale=scale)
        return kept[0][..., : value.shape[-1]]
    if attn_mask is not None:
        rows = (*query.shape[:-1], key.shape[-2])
        attn_mask = _pad(attn_mask, 16)[..., : key.shape[-2]].expand(rows)
    if kernel == CUDNN:
        kept = aten._scaled_dot_product_cudnn_attention(
            query, key, value, attn_mask, learns, dropout_p, is_causal, False, scale=scale
        )
    else:
        kept = aten._scaled_dot_product_efficient_attention(
            query, key, value, attn_mask, learns, dropout_p, is_causal, scale=scale
        )
    return kept[0]


def _additive(mask: Tensor, query: Tensor) -> Tensor:
    """What a mask of booleans adds to the scores: 0 where it is true, minus infinity elsewhere."""
    seen, hidden = (query.new_full((), value) for value in (0.0, -torch.inf))
    return torch.where(mask, seen, hidden)


def _pad(t: Tensor, multiple: int) -> Tensor:
    """The CUDA kernels want the last dimension aligned; only an unaligned tensor is copied."""
    missing = -t.shape[-1] % multiple
    return torch.nn.functional.pad(t, (0, missing)) if missing else t


Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype, bool]  # shape, stride, dtype, requires_grad


def _layout_of(t: Tensor | None) -> Layout | None:
    return None if t is None else (tuple(t.shape), t.stride(), t.dtype, t.requires_grad)


@lru_cache(maxsize=256)
def _kernel(
    device: torch.device,
    layouts: tuple[Layout, Layout, Layout],
    mask: Layout | None,
    options: tuple[tuple[str, Any], ...],
) -> int:
    """The kernel that PyTorch's dispatcher chooses on the device, called on stand-ins of a few bytes."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return _kernel_of_an_absent_gpu(layouts, mask)
    query, key, value = (_stand_in(layout, device) for layout in layouts)
    choose: Any = vars(torch)["_fused_sdp_choice"]  # PyTorch exports it to no type checker
    return choose(query, key, value, mask and _stand_in(mask, device), **dict(options))


def _stand_in(layout: Layout, device: torch.device) -> Tensor:
    """A tensor of this layout whose rows all lie in the same few bytes."""
    shape, stride, dtype, learns = layout
    flat = (*(0 for _ in shape[:-1]), stride[-1])
    return torch.empty_strided(shape, flat, dtype=dtype, device=device, requires_grad=learns)


def _kernel_of_an_absent_gpu(layouts: tuple[Layout, Layout, Layout], mask: Layout | None) -> int:
    """What a recent GPU takes: flash for half precision without a mask, the memory-efficient kernel otherwise."""
    (_, *_, width), dtype = layouts[0][0], layouts[0][2]
    if mask is None and dtype in (torch.float16, torch.bfloat16) and width <= 256:
        return FLASH
    aligned = width % (4 if dtype == torch.float32 else 8) == 0
    return EFFICIENT if aligned else MATH
