"""The traced profile against separately built models whose saved tensors are really counted."""

import random
from functools import partial

import pytest
import torch

from taskit.backbone.heads import head_names
from taskit.backbone.target_modules import find_locations
from taskit.memory.conditions import BatchShape, Conditions
from taskit.memory.trace import trace
from taskit.step.lora import adapt
from tests.memory.steps import saved_bytes
from tests.tiny import tiny_model

TOKENS = torch.arange(20).reshape(2, 10)
MASK = (TOKENS < 17).long()  # some padding: without any, Transformers drops the mask and saves a little less
TEXT = {"input_ids": TOKENS, "attention_mask": MASK}
CASES = {
    "vit": "image-classification",
    "deit": "image-classification",
    "swin": "image-classification",
    "dinov2": "image-classification",
    "bert": "text-classification",
    "roberta": "text-classification",
    "distilbert": "text-classification",
    "modernbert": "text-classification",
    "gpt2": "text-generation",
    "llama": "text-generation",
    "qwen3": "text-generation",
    "gemma3": "text-generation",
    "phi3": "text-generation",
    "t5": "text-generation",
}


def without_dropout(name):
    model = tiny_model(name)
    if model.config.is_encoder_decoder:
        model.config.decoder_start_token_id = 0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(vars(module).get("dropout"), float):  # T5's attention
            module.dropout = 0.0
    return model


def batch_for(name, model):
    if CASES[name] == "image-classification":
        side = model.config.image_size
        return {"pixel_values": torch.randn(2, 3, side, side), "labels": torch.tensor([0, 1])}
    labels = TOKENS if CASES[name] == "text-generation" else torch.tensor([0, 1])
    return {**TEXT, "labels": labels}


def on_meta(name):
    with torch.device("meta"):
        return without_dropout(name)


def profile_of(name, **options):
    model = without_dropout(name)
    batch = batch_for(name, model)
    locations = find_locations(model)
    heads = head_names(model, CASES[name])
    conditions = Conditions(BatchShape.of(batch), **options)
    return trace(partial(on_meta, name), locations, heads, CASES[name], conditions), batch, heads


@pytest.mark.parametrize("name", CASES)
def test_activation_bytes_of_random_strategies_equal_what_real_models_save(name):
    profile, batch, heads = profile_of(name)
    always = saved_bytes(adapt(without_dropout(name), dict.fromkeys(profile.locations, 0), heads, CASES[name]), batch)
    choose = random.Random(name)
    for count in (1, 2, 3, len(profile.locations) // 2, len(profile.locations)):
        inserted = set(choose.sample(range(len(profile.locations)), min(count, len(profile.locations))))
        ranks = [4 if k in inserted else 0 for k in range(len(profile.locations))]
        model = adapt(without_dropout(name), dict(zip(profile.locations, ranks, strict=True)), heads, CASES[name])
        lora = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
        parts = profile.breakdown(ranks)
        # module bytes hold weights, gradients and two moments of fp32, and the rank-sized activations
        predicted = always + parts.activation_bytes + parts.module_bytes - 16 * lora
        assert predicted == pytest.approx(saved_bytes(model, batch), rel=0.02), inserted


def test_every_location_needs_its_own_input_and_all_it_feeds():
    profile, _, _ = profile_of("llama")
    first, last = 0, len(profile.locations) - 1
    alone = [profile.bytes([8 if k == i else 0 for k in range(last + 1)]) for i in (first, last)]
    assert alone[0] > alone[1]
    assert all(storage.bytes > 0 for storage in profile.storages)
    shared = [set(s.needed_by) for s in profile.storages]
    assert {0, 1, 2} in shared, "q, k and v of the first block read one input"


@pytest.mark.parametrize(("optimizer", "numbers"), [("adamw", 4), ("sgd", 3)])
def test_a_rank_costs_its_weights_gradient_and_optimizer_state(optimizer, numbers):
    profile, _, _ = profile_of("vit", optimizer=optimizer)
    model = without_dropout("vit")
    tokens = 2 * (1 + (16 // 8) ** 2)
    for name, cost in zip(profile.locations, profile.rank_bytes, strict=True):
        linear = model.get_submodule(name)
        assert cost == 4 * (numbers * (linear.in_features + linear.out_features) + tokens)


def test_checkpointing_keeps_one_input_a_block():
    plain, _, _ = profile_of("llama")
    checkpointed, _, _ = profile_of("llama", gradient_checkpointing=True)
    full = [8] * len(plain.locations)
    assert checkpointed.breakdown(full).activation_bytes < plain.breakdown(full).activation_bytes / 2
