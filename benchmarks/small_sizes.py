"""All architectures of architectures.py at sizes that a CPU trains in a moment."""

from dataclasses import replace
from typing import Any

import torch

from benchmarks.architectures import ARCHITECTURES, Architecture
from benchmarks.real_steps import SMALL

VISION = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "num_hidden_layers": 3}
DECODER = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 3, "num_attention_heads": 4}
DECODER |= {"num_key_value_heads": 2, "vocab_size": 2000, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MORE: dict[str, dict[str, Any]] = {
    "DeiT-S": VISION | {"image_size": 96},
    "Swin-T": {"image_size": 64, "embed_dim": 32, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4},
    "DINOv2-B": VISION | {"image_size": 98},
    "RoBERTa-base": VISION | {"vocab_size": 2000},
    "DistilBERT": {"dim": 256, "hidden_dim": 1024, "n_layers": 3, "n_heads": 4, "vocab_size": 2000},
    "Qwen3-0.6B": DECODER | {"head_dim": 64},
    "Gemma3-1B": DECODER | {"num_key_value_heads": 1, "head_dim": 64},
    "Phi-3-mini": DECODER,
    "Mixtral-small": DECODER | {"intermediate_size": 256, "num_local_experts": 4},
    "Janus-Pro-1B": SMALL["Janus-Pro-1B, images"],
    "SmolVLM-256M": SMALL["SmolVLM-256M, tower"],
    "Qwen2.5-VL-3B": SMALL["Qwen2.5-VL-3B, tower"],
}


def small_size(name: str) -> Architecture:
    """Any of the architectures, with a few hundred thousand numbers, in float32."""
    base, sizes = ARCHITECTURES[name], {**SMALL, **MORE}[name]
    rows = base.tokens[0] if base.pictures else 4
    return replace(base, settings={**base.settings, **sizes}, tokens=(rows, 64), dtype=torch.float32)
