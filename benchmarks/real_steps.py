"""Whole training steps on this CPU beside their predicted peak, under the conditions that a run can have."""

import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers as t

from benchmarks.architectures import ARCHITECTURES, GENERATION, Architecture
from taskit.backbone.heads import head_names
from taskit.backbone.target_modules import find_locations
from taskit.memory.conditions import Conditions
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.memory.quantized import quantize_empty
from taskit.memory.rehearsal import rehearse
from taskit.step.lora import adapt
from taskit.step.recompute import use_checkpointing
from taskit.step.step import make_optimizer, train_step
from tests.memory.steps import allocated_peak

TEXT_TOWER = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2}
TEXT_TOWER |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2000}
VISION_TOWER = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 16}
SMALL: dict[str, dict[str, Any]] = {
    "ViT-B/16": {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "num_hidden_layers": 3}
    | {"image_size": 96},
    "BERT-base": {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "num_hidden_layers": 2}
    | {"vocab_size": 2000},
    "ModernBERT-base": {
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
    }
    | {"vocab_size": 2000, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2}
    | {"bos_token_id": 1, "eos_token_id": 2},
    "GPT-2": {"n_embd": 256, "n_head": 4, "n_layer": 2, "vocab_size": 2000, "bos_token_id": 1, "eos_token_id": 2},
    "Llama-1B": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 3, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "vocab_size": 2000},
    "T5-base": {"d_model": 256, "d_ff": 704, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 1}
    | {"vocab_size": 2000},
    "Janus-Pro-1B, images": {"text_config": TEXT_TOWER, "image_token_id": 1990}
    | {"vision_config": {**VISION_TOWER, "image_size": 96, "projection_dim": 256, "mlp_ratio": 4.0}}
    | {"vq_config": {"embed_dim": 8, "num_embeddings": 16, "base_channels": 32, "num_res_blocks": 1}},
    "SmolVLM-256M, tower": {"text_config": TEXT_TOWER, "image_token_id": 1990}
    | {"vision_config": {**VISION_TOWER, "image_size": 96, "intermediate_size": 1024}, "scale_factor": 2},
    "Qwen2.5-VL-3B, tower": {
        "text_config": {
            **{k: v for k, v in TEXT_TOWER.items() if k != "model_type"},
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
        },
        "vision_config": {"depth": 2, "hidden_size": 256, "intermediate_size": 704, "num_heads": 4, "patch_size": 14}
        | {"out_hidden_size": 256, "fullatt_block_indexes": [1], "window_size": 112},
        "image_token_id": 1990,
    },
}
CONDITIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"dtype": torch.bfloat16},
    "fp16": {"dtype": torch.float16},
    "sgd": {"optimizer": "sgd"},
    "adamw8bit": {"optimizer": "adamw8bit"},
    "accumulation 2": {"gradient_accumulation": 2},
    "checkpointing": {"gradient_checkpointing": True},
    "8bit": {"quantization": "8bit"},
    "4bit": {"quantization": "4bit"},
}


def small(name: str, dtype: torch.dtype = torch.float32) -> Architecture:
    base = ARCHITECTURES[name]
    return replace(base, settings={**base.settings, **SMALL[name]}, tokens=(4, 64), dtype=dtype)


def peak_row(architecture: str, condition: str, strategies: int, seed: int) -> dict:
    row = _row(architecture, dict(CONDITIONS[condition]), strategies, seed)
    print(
        f"{architecture:20} {condition:15} {row['mean_error']:7.3%} {row['worst_error']:7.3%} "
        f"{row['lowest_error']:+8.3%}  live {row['worst_error_live']:7.3%}  {'holds' if row['holds'] else 'FAILS'}",
        flush=True,
    )
    return row


def _row(name: str, options: dict[str, Any], strategies: int, seed: int) -> dict:
    quantization, dtype = options.pop("quantization", None), options.pop("dtype", torch.float32)
    base, choose = small(name, dtype), random.Random(f"{seed} {name}")
    errors, live_errors = [], []
    with tempfile.TemporaryDirectory() as folder:
        load = Loader(base, quantization, Path(folder))
        places = find_locations(load.empty(), base.vision_tower)
        heads = head_names(load.empty(), base.task)
        conditions = Conditions(base.batch(), **options)
        for _ in range(strategies):
            inserted = set(choose.sample(range(len(places)), choose.randint(1, len(places))))
            ranks = {p.name: choose.choice((1, 4, 16)) if k in inserted else 0 for k, p in enumerate(places)}
            predicted = rehearse(load.empty, ranks, heads, base.task, conditions)
            allocated, live = real_peaks(load.real(), ranks, heads, base, conditions)
            errors.append(predicted / allocated - 1)
            live_errors.append(abs(predicted / live - 1))
    sizes = [abs(error) for error in errors]
    found = {"strategies": strategies, "mean_error": sum(sizes) / len(sizes), "worst_error": max(sizes)}
    found |= {"lowest_error": min(errors), "worst_error_live": max(live_errors)}
    found["holds"] = found["mean_error"] <= 0.02 and found["worst_error"] <= 0.05 and found["lowest_error"] >= -0.01
    return found


class Loader:
    """One small model, on meta and with weights, quantised or not."""

    def __init__(self, base: Architecture, quantization: str | None, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.auto = type(base.build())
        half = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        half |= {"bnb_4bit_compute_dtype": base.dtype}
        options = {"8bit": {"load_in_8bit": True}, "4bit": half}.get(quantization or "")
        heads = list(head_names(base.build(), base.task)) or ["lm_head"]
        self.config = options and t.BitsAndBytesConfig(**options, llm_int8_skip_modules=heads)
        model = self.auto(base.build().config).to(base.dtype)
        model.save_pretrained(folder)

    def empty(self) -> Any:
        model = self.base.build()
        return quantize_empty(model, self.config, "cpu") if self.config else model

    def real(self) -> Any:
        quantized = {"quantization_config": self.config, "device_map": {"": "cpu"}} if self.config else {}
        return self.auto.from_pretrained(self.folder, dtype=self.base.dtype, **quantized)


def real_peaks(
    model: Any, ranks: Mapping[str, int], heads: tuple[str, ...], base: Architecture, conditions: Conditions
) -> tuple[int, int]:
    """(bytes by the allocator's events, bytes of live storages) of two whole steps."""
    model = adapt(model, ranks, heads, base.task)
    if conditions.gradient_checkpointing:
        use_checkpointing(model)
    model.train()

    def work() -> None:
        *micro, _ahead = [dict(filled(base)) for _ in range(conditions.gradient_accumulation + 1)]
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = make_optimizer(conditions.optimizer, trained, 1e-4, 0.0)
        for _ in range(2):
            train_step(model, optimizer, micro)

    live = LiveStorages()
    live.follow(standing_tensors(model))
    with live:
        work()
    return allocated_peak(standing_tensors(model), work), live.peak


def filled(base: Architecture) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a real batch, by their names."""
    batch = base.batch()
    for name, zeros in batch.empty().items():
        if batch.known:
            yield name, zeros
        elif name == "pixel_values":
            yield name, torch.rand_like(zeros)
        elif name == "attention_mask":
            zeros[:, :-1] = 1  # one padded token a row, for Transformers drops a mask without any
            yield name, zeros
        else:
            yield name, zeros + 3 if base.task == GENERATION else zeros
