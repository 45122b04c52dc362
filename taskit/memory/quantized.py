"""Lay a model on meta out in 8 or 4 bits, as bitsandbytes lays out the weights it loads.

The functions that quantise loaded weights are run on weights without numbers, so that what they keep beside the
packed weights (row scales, block maxima, their own scales under double quantisation, code books) is there too.
The operators of bitsandbytes that a step then calls get their rules here.
"""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from taskit.memory.live import LiveStorages
from taskit.memory.shapes import RULES, SCRATCH
from taskit.memory.simulated_device import simulated_device

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel


def quantize_empty(model: "PreTrainedModel", config: "BitsAndBytesConfig", device: str) -> "PreTrainedModel":
    """``model`` on meta with the quantised layers that ``from_pretrained`` would give it on ``device``."""
    from transformers.quantizers.auto import AutoHfQuantizer
    from transformers.quantizers.quantizers_utils import get_module_from_name

    add_bitsandbytes_rules()
    dtype = model.dtype
    weights = {name: p for name, p in model.named_parameters() if name.endswith(".weight")}
    quantizer: Any = AutoHfQuantizer.from_config(cast(Any, config))
    with simulated_device(device), LiveStorages(rules=RULES):
        quantizer.preprocess_model(model=model, device_map={"": device})
        convert = quantizer.get_quantize_ops().convert
        for name, parameter in list(model.named_parameters()):
            module, leaf = get_module_from_name(model, name)
            if quantizer.param_needs_quantization(model, name):
                made = convert({name: weights[name].data}, model=model, full_layer_name=name)[name]
                setattr(module, leaf, made)
            elif parameter.dtype != dtype and hasattr(module, "source_cls"):
                parameter.data = parameter.data.to(dtype)  # the bias of a layer that was made anew
        quantizer.postprocess_model(model)
    return model.requires_grad_(False)


def add_bitsandbytes_rules() -> None:
    """Add the rules of bitsandbytes' operators, which exist once it is imported."""
    import bitsandbytes  # noqa: F401

    operators: Any = torch.ops.bitsandbytes
    RULES[operators.int8_vectorwise_quant.default] = _quantize_rows
    SCRATCH[operators.gemm_4bit.default] = _unpacked


def _quantize_rows(rows: Tensor, *_: float) -> tuple[Tensor, Tensor, None]:
    """Eight bits and a scale for each row; the number of outlier columns depends on the numbers, and is small."""
    scales = rows.new_empty(rows.numel() // rows.shape[-1], dtype=torch.float32)
    return torch.empty_like(rows, dtype=torch.int8), scales, None


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
