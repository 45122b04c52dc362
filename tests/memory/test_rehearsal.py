"""A rehearsal against the same steps on real tensors, counted twice: by live storages and by the allocator."""

from functools import partial

import pytest
import torch

from taskit.memory.conditions import BatchShape, Conditions
from taskit.memory.live import LiveStorages
from taskit.memory.rehearsal import rehearse
from taskit.step.lora import adapt
from taskit.step.recompute import use_checkpointing
from taskit.step.step import make_optimizer, train_step
from tests.memory.steps import allocated_peak
from tests.memory.test_trace import CASES, on_meta, profile_of, without_dropout


def strategy(profile, every):
    return {name: 4 if k % every == 0 else 0 for k, name in enumerate(profile.locations)}


def real_step(name, ranks, heads, batch, optimizer="adamw", accumulation=1, checkpointing=False):
    """(standing tensors, a function that trains two steps) of a real model."""
    model = adapt(without_dropout(name), ranks, heads, CASES[name])
    if checkpointing:
        use_checkpointing(model)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]

    def work():
        *micro_batches, _ahead = [{k: v.clone() for k, v in batch.items()} for _ in range(accumulation + 1)]
        chosen = make_optimizer(optimizer, trained, 1e-3, 0.0)
        for _ in range(2):
            train_step(model, chosen, micro_batches)

    return [*model.parameters(), *model.buffers()], work


def rehearsed(name, ranks, heads, batch, **options):
    return rehearse(partial(on_meta, name), ranks, heads, CASES[name], Conditions(BatchShape.of(batch), **options))


@pytest.mark.parametrize("name", ["vit", "bert", "modernbert", "gpt2", "llama", "t5"])
@pytest.mark.parametrize("every", [1, 3])
def test_rehearsed_peak_equals_the_live_storages_of_real_steps(name, every):
    profile, batch, heads = profile_of(name)
    ranks = strategy(profile, every)
    standing, work = real_step(name, ranks, heads, batch)
    live = LiveStorages()
    live.follow(standing)
    with live:
        work()
    assert rehearsed(name, ranks, heads, batch) == pytest.approx(live.peak, rel=0.01)


@pytest.mark.parametrize(("name", "tokens"), [("llama", 300), ("bert", 32)])
def test_a_single_row_needs_no_mask(name, tokens):
    """It is never padded; a mask of 300 x 300 tokens would be more than half of all this Llama takes."""
    profile, _, heads = profile_of(name)
    ids = torch.arange(tokens)[None] % 40
    labels = ids if CASES[name] == "text-generation" else torch.tensor([1])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    ranks = strategy(profile, 1)
    standing, work = real_step(name, ranks, heads, batch)
    live = LiveStorages()
    live.follow(standing)
    with live:
        work()
    assert rehearsed(name, ranks, heads, batch) == pytest.approx(live.peak, rel=0.002)


@pytest.mark.parametrize("name", ["vit", "bert", "llama"])
def test_rehearsed_peak_agrees_with_the_allocator(name):
    profile, batch, heads = profile_of(name)
    ranks = strategy(profile, 2)
    standing, work = real_step(name, ranks, heads, batch)
    # The allocator rounds each of these tiny tensors up and sees what kernels use inside.
    assert rehearsed(name, ranks, heads, batch) == pytest.approx(allocated_peak(standing, work), rel=0.05)


@pytest.mark.parametrize(
    "options", [{"gradient_accumulation": 2}, {"optimizer": "sgd"}, {"gradient_checkpointing": True}]
)
def test_rehearsal_follows_the_conditions(options):
    profile, batch, heads = profile_of("llama")
    ranks = strategy(profile, 2)
    renamed = {"gradient_accumulation": "accumulation", "gradient_checkpointing": "checkpointing"}
    standing, work = real_step("llama", ranks, heads, batch, **{renamed.get(k, k): v for k, v in options.items()})
    live = LiveStorages()
    live.follow(standing)
    with live:
        work()
    assert rehearsed("llama", ranks, heads, batch, **options) == pytest.approx(live.peak, rel=0.01)


def test_without_insertion_generation_is_only_evaluated():
    profile, batch, heads = profile_of("llama")
    nothing = dict.fromkeys(profile.locations, 0)
    assert rehearsed("llama", nothing, heads, batch) < rehearsed("llama", strategy(profile, 2), heads, batch)


def test_live_storages_counts_by_hand():
    live = LiveStorages()
    with live:
        a = torch.zeros(100)
        b = a + 1
        assert live.now == 800
        view = b[:10]
        del b
        assert live.now == 800, "a view keeps its storage"
        del view
        assert live.now == 400
        torch.zeros(1000)
    assert live.now == 400
    assert live.peak == 4400
    assert a.sum() == 0
