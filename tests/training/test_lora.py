"""LoRA goes exactly where the strategy says, on every architecture."""

import pytest

from taskit.locations import find_locations
from taskit.training.lora import adapt
from tests.tiny import tiny_model

TASK = "text-generation"


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "mixtral", "qwen2-moe"])
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
