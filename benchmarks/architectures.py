"""Memory profiles traced from real architectures at their real sizes, without weights or network."""

from functools import partial

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    SwinConfig,
    T5Config,
    ViTConfig,
)

from taskit.heads import head_names
from taskit.locations import find_locations
from taskit.memory.conditions import BatchShape, Conditions
from taskit.memory.profile import MemoryProfile
from taskit.memory.trace import trace

LLAMA_1B = LlamaConfig(
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128_256,
    tie_word_embeddings=True,
)
QWEN_600M = Qwen3Config(
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=151_936,
    tie_word_embeddings=True,
)
T5_BASE = T5Config(
    d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_decoder_layers=12, num_heads=12, decoder_start_token_id=0
)
SWIN_TINY = SwinConfig(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24])

# name: (class to build with, config, task, rows a batch, tokens a row)
ARCHITECTURES = {
    "ViT-B/16": (AutoModelForImageClassification, ViTConfig(), "image-classification", 16, 0),
    "Swin-T": (AutoModelForImageClassification, SWIN_TINY, "image-classification", 16, 0),
    "BERT-base": (AutoModelForSequenceClassification, BertConfig(), "text-classification", 16, 128),
    "T5-base": (AutoModelForSeq2SeqLM, T5_BASE, "text-generation", 8, 128),
    "Llama-3.2-1B": (AutoModelForCausalLM, LLAMA_1B, "text-generation", 4, 256),
    "Qwen3-0.6B": (AutoModelForCausalLM, QWEN_600M, "text-generation", 4, 256),
}


def build(auto: type, config: PretrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return auto.from_config(config)


def traced(name: str) -> MemoryProfile:
    """The profile of one of ARCHITECTURES, AdamW in fp32."""
    auto, config, task, rows, tokens = ARCHITECTURES[name]
    model = build(auto, config)
    if tokens:
        labels = (rows, tokens) if task == "text-generation" else (rows,)
        shapes = {"input_ids": (rows, tokens), "labels": labels}
        tensors = [(field, shape, "int64") for field, shape in shapes.items()]
    else:
        side = config.image_size
        tensors = [("pixel_values", (rows, 3, side, side), "float32"), ("labels", (rows,), "int64")]
    conditions = Conditions(BatchShape(tuple(tensors)))
    locations, heads = find_locations(model), head_names(model, task)
    return trace(partial(build, auto, config), locations, heads, task, conditions)
