"""Lay a model on meta out in 8 or 4 bits, as bitsandbytes lays out the weights it loads.

The functions that quantise loaded weights are run on weights without numbers, so that what they keep beside the
packed weights (row scales, block maxima, their own scales under double quantisation, code books) is there too.
"""

from typing import TYPE_CHECKING, Any, cast

from taskit.memory.live import LiveStorages
from taskit.memory.shapes import RULES, with_bitsandbytes
from taskit.memory.simulated_device import simulated_device

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel


def quantize_empty(model: "PreTrainedModel", config: "BitsAndBytesConfig", device: str) -> "PreTrainedModel":
    """``model`` on meta with the quantised layers that ``from_pretrained`` would give it on ``device``."""
    from transformers.quantizers.auto import AutoHfQuantizer
    from transformers.quantizers.quantizers_utils import get_module_from_name

    with_bitsandbytes()
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
