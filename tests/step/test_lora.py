"""LoRA goes exactly where the strategy says, on every architecture."""

import json
import warnings

import pytest
import torch
from peft import PeftModel

from taskit.backbone.target_modules import find_locations
from taskit.step.lora import adapt
from taskit.training.export import write_weights
from tests.tiny import tiny_model

TASK = "text-generation"


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "mixtral", "qwen2-moe", "qwen3-moe"])
def test_lora_goes_where_the_strategy_says_and_nowhere_else(name):
    model = tiny_model(name)
    places = [place.name for place in find_locations(model)]
    ranks = {place: 2 * (k % 3) for k, place in enumerate(places)}
    adapted = adapt(model, ranks, (), TASK)
    found = {
        path.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight"): p.shape[0]
        for path, p in adapted.named_parameters()
        if ".lora_A." in path
    }
    assert found == {place: rank for place, rank in ranks.items() if rank}
    assert not [path for path, p in adapted.named_parameters() if p.requires_grad and ".lora_" not in path]


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "qwen3-moe"])
def test_the_adapter_of_a_mixture_of_experts_is_the_same_in_plain_peft(name, plan, tmp_path):
    places = [place.name for place in find_locations(tiny_model(name))]
    adapted = adapt(tiny_model(name), {place: 2 * (k % 3) for k, place in enumerate(places)}, (), TASK).eval()
    for path, parameter in adapted.named_parameters():
        if ".lora_B." in path:
            torch.nn.init.normal_(parameter, std=0.3)
    write_weights(adapted, plan, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        plain = PeftModel.from_pretrained(tiny_model(name), tmp_path)
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        ours, theirs, bare = (model(tokens).logits for model in (adapted, plain, tiny_model(name)))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0)
    assert not torch.allclose(ours, bare, atol=1e-3)
    assert {path for path, _ in plain.named_parameters()} == {path for path, _ in adapted.named_parameters()}
    assert set(json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]) <= set(places)
