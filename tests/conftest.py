"""Tiny random models, and LoRA adapters that PEFT itself made and saved."""

import copy
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from tests.hub.address import ENDPOINT

os.environ["HF_HUB_OFFLINE"] = "1"  # both before any import that reads them
os.environ["HF_ENDPOINT"] = ENDPOINT  # only the tests in tests/hub go online, to their own hub

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

settings.register_profile("taskit", deadline=None)  # how long a case takes is the machine's affair
settings.load_profile("taskit")

pytest_plugins = ["tests.hub.fixtures"]  # here, so that all folders share one hub

BACKBONE = "test/tiny"
VIT = ("vit.layers.0.attention.q_proj", "vit.layers.0.mlp.fc1", "vit.layers.1.attention.v_proj")
BERT = ("bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense")
GPT2 = ("transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj")

torch.set_num_threads(1)


@pytest.fixture
def tiny_vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3)).eval()


@pytest.fixture
def tiny_bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertForSequenceClassification(BertConfig(**sizes, vocab_size=50, num_labels=3)).eval()


@pytest.fixture
def tiny_gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=32)).eval()


@pytest.fixture
def images() -> dict[str, torch.Tensor]:
    """Twelve random images of three classes."""
    generator = torch.Generator().manual_seed(1)
    return {"pixel_values": torch.randn(12, 3, 8, 8, generator=generator), "labels": torch.arange(12) % 3}


@pytest.fixture
def sentences() -> dict[str, torch.Tensor]:
    """Twelve random sentences of 4 to 9 tokens, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    lengths = 4 + torch.arange(12) % 6
    mask = (torch.arange(9) < lengths[:, None]).long()
    tokens = torch.randint(1, 50, (12, 9), generator=generator) * mask
    return {"input_ids": tokens, "attention_mask": mask, "labels": torch.arange(12) % 3}


def save_adapter(
    model: PreTrainedModel, folder: Path, ranks: Mapping[str, int], *, seed: int = 0, scale: float = 0.3, **options
) -> PeftModel:
    """A LoRA with random B at the modules of ``ranks``, alpha differing by module, saved by PEFT itself."""
    torch.manual_seed(seed)
    keys = {name: "^" + re.escape(name) for name in ranks}
    settings = {
        "r": max(ranks.values()),
        "target_modules": "|".join(map(re.escape, ranks)),
        "rank_pattern": {keys[name]: rank for name, rank in ranks.items()},
        "alpha_pattern": {keys[name]: 2 * rank + k for k, (name, rank) in enumerate(ranks.items())},
    }
    peft = get_peft_model(copy.deepcopy(model), LoraConfig(**(settings | options)))
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=scale)
    peft.peft_config["default"].base_model_name_or_path = BACKBONE
    peft.save_pretrained(folder, save_embedding_layers=False)
    return peft.eval()


@pytest.fixture
def make_adapter() -> Callable[..., PeftModel]:
    return save_adapter
