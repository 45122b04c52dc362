"""Blocks recomputed one by one: the same gradients, and only the forward passes that were asked for."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from taskit.backbone.heads import head_names
from taskit.backbone.target_modules import find_locations
from taskit.errors import PlanError
from taskit.step.lora import adapt
from taskit.step.recompute import named_blocks, use_checkpointing
from tests.memory.test_trace import CASES, batch_for, without_dropout

NAMES = ("bert", "llama", "vit", "swin", "t5", "gpt2")


def adapted(name):
    """LoRA everywhere whose two factors both count, in training mode; in double precision against rounding."""
    model = without_dropout(name).double()
    for module in model.modules():
        if isinstance(vars(module).get("drop_prob"), float):  # Swin drops whole rows
            module.drop_prob = 0.0
    batch = {k: t.double() if t.is_floating_point() else t for k, t in batch_for(name, model).items()}
    ranks = {place.name: 2 for place in find_locations(model)}
    made = adapt(model, ranks, head_names(model, CASES[name]), CASES[name])
    for path, parameter in made.named_parameters():
        if ".lora_B." in path:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.train(), batch


def gradients_and_passes(model, batch):
    """The gradient of everything that is trained, and how often the inside of each block was run forward."""
    counted, parts = Counter(), {}
    for name, block in named_blocks(model).items():  # whose own hooks run once, and some of its parts twice
        parts[name] = [module for path, module in block.named_modules() if path.endswith(".lora_A.default")]
    hooks = [
        module.register_forward_pre_hook(lambda module, _: counted.update([module]))
        for modules in parts.values()
        for module in modules
    ]
    model.zero_grad()
    model(**batch).loss.backward()
    for hook in hooks:
        hook.remove()
    passes = {name: max(counted[module] for module in modules) for name, modules in parts.items()}
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, passes


@pytest.mark.parametrize("name", NAMES)
def test_any_blocks_give_the_gradients_of_keeping_all_and_are_run_once_more(name):
    model, batch = adapted(name)
    blocks = list(named_blocks(model))
    expected, passes = gradients_and_passes(model, batch)
    assert passes == dict.fromkeys(blocks, 1)
    subsets = [chosen for size in range(1, len(blocks) + 1) for chosen in combinations(blocks, size)]
    for chosen in subsets[:6] + subsets[-1:]:
        use_checkpointing(model, chosen)
        found, passes = gradients_and_passes(model, batch)
        assert passes == {block: 2 if block in chosen else 1 for block in blocks}
        assert found.keys() == expected.keys()
        for path, gradient in expected.items():
            assert (found[path] - gradient).norm() <= 1e-6 * gradient.norm(), path


def test_without_names_all_blocks_are_recomputed():
    model, batch = adapted("bert")
    use_checkpointing(model)
    _, passes = gradients_and_passes(model, batch)
    assert set(passes.values()) == {2}


def test_a_later_choice_replaces_an_earlier_one():
    model, batch = adapted("llama")
    first, second = named_blocks(model)
    use_checkpointing(model, (first,))
    use_checkpointing(model, (second,))
    _, passes = gradients_and_passes(model, batch)
    assert passes == {first: 1, second: 2}


def test_the_stages_around_a_swins_blocks_are_not_recomputed_with_them():
    """A stage asks for gradient checkpointing like a block, and would recompute all blocks in it."""
    model, batch = adapted("swin")
    blocks = named_blocks(model)
    stages = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m not in blocks.values()]
    assert stages
    chosen = list(blocks)[:1]
    use_checkpointing(model, chosen)
    _, passes = gradients_and_passes(model, batch)
    assert passes == {name: 2 if name in chosen else 1 for name in blocks}
    assert not any(stage.gradient_checkpointing for stage in stages)


def test_a_block_that_does_not_exist_is_refused_by_its_name():
    model, _ = adapted("bert")
    block = next(iter(named_blocks(model)))
    with pytest.raises(PlanError, match=r"^The plan recomputes the block layer\.9, which .*; remove it\.$"):
        use_checkpointing(model, (block, "layer.9"))


def test_blocks_have_the_names_of_the_backbone_with_an_adapter_or_without():
    model, _ = adapted("llama")
    assert (
        list(named_blocks(model))
        == list(named_blocks(without_dropout("llama")))
        == ["model.layers.0", "model.layers.1"]
    )
