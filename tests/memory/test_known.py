"""Vision-language models without weights: what is traced and rehearsed against really saved and really live bytes."""

import random
from functools import partial

import pytest
import torch

from taskit.backbone.loading import empty_model, load_model
from taskit.backbone.processors import make_collator
from taskit.backbone.sources import find_backbone
from taskit.backbone.target_modules import find_locations
from taskit.data import load, longest_rows
from taskit.memory.conditions import BatchShape, Conditions
from taskit.memory.known import KnownInputs
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.memory.rehearsal import rehearse
from taskit.memory.simulated_device import simulated_device
from taskit.memory.trace import trace
from taskit.step.lora import adapt
from taskit.step.recompute import use_checkpointing
from taskit.step.step import make_optimizer, train_step
from tests.memory.steps import saved_bytes
from tests.visual import FAMILIES, write_questions, write_visual

TASK = "image-text-to-text"


@pytest.fixture(scope="module", params=FAMILIES)
def seeing(request, tmp_path_factory):
    """(backbone, the longest batch of three rows: images of two sizes, questions of two lengths)."""
    folder = tmp_path_factory.mktemp(request.param)
    backbone = find_backbone(str(write_visual(folder / "model", request.param)))
    data = load(write_questions(folder / "questions.zip", rows=8, sizes=((20, 20), (40, 20))))
    collator = make_collator(backbone, TASK, None)
    rows = [dict(data.train[n]) for n in range(2)] + longest_rows(data.train, collator, 1)
    return backbone, collator(rows)


def strategies(places, seed):
    choose = random.Random(seed)
    for count in (1, 2, len(places) // 2, len(places)):
        inserted = set(choose.sample(range(len(places)), count))
        yield [4 if k in inserted else 0 for k in range(len(places))]


def build(backbone):
    return empty_model(backbone, task=TASK, labels=())


def real(backbone, places, ranks):
    strategy = {place.name: rank for place, rank in zip(places, ranks, strict=True)}
    return adapt(load_model(backbone, task=TASK, labels=()), strategy, (), TASK)


@pytest.mark.parametrize("tower", [False, True])
def test_activation_bytes_of_random_strategies_equal_what_real_models_save(seeing, tower):
    backbone, batch = seeing
    places = find_locations(build(backbone), tower)
    profile = trace(partial(build, backbone), places, (), TASK, Conditions(BatchShape.of(batch)))
    always = saved_bytes(real(backbone, places, [0] * len(places)), batch)
    errors = []
    for ranks in strategies(places, backbone.id):
        model = real(backbone, places, ranks)
        lora = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
        parts = profile.breakdown(ranks)
        predicted = always + parts.activation_bytes + parts.module_bytes - 16 * lora
        errors.append(abs(predicted / saved_bytes(model, batch) - 1))
    assert max(errors) <= 0.02
    assert sum(errors) / len(errors) <= 0.01  # the tracer's few bytes too many weigh a lot in so small a model


@pytest.mark.parametrize(("tower", "checkpointing"), [(False, False), (True, False), (True, True)])
def test_rehearsed_peak_equals_the_live_storages_of_real_steps(seeing, tower, checkpointing):
    backbone, batch = seeing
    places = find_locations(build(backbone), tower)
    ranks = [4 * (k % 2) for k in range(len(places))]
    strategy = {place.name: rank for place, rank in zip(places, ranks, strict=True)}
    conditions = Conditions(BatchShape.of(batch), gradient_checkpointing=checkpointing)
    predicted = rehearse(partial(build, backbone), strategy, (), TASK, conditions)
    model = real(backbone, places, ranks)
    if checkpointing:
        use_checkpointing(model)
    model.train()
    live = LiveStorages()
    live.follow(standing_tensors(model))
    with live:
        micro, _ahead = [{k: v.clone() for k, v in batch.items()} for _ in range(2)]
        optimizer = make_optimizer("adamw", [p for p in model.parameters() if p.requires_grad], 1e-3, 0.0)
        for _ in range(2):
            train_step(model, optimizer, [micro])
    assert predicted == pytest.approx(live.peak, rel=0.01)


def test_a_number_that_comes_from_a_weight_is_not_made_up():
    weight = torch.ones(3, device="meta")
    with simulated_device("cpu", known=True), KnownInputs():
        seen = torch.tensor([1, 2, 3])
        assert seen.sum().item() == 6
        assert (seen > 1).nonzero().shape == (2, 1)
        assert weight[seen > 1].shape == (2,)
        assert weight.masked_select(seen > 1).shape == (2,)
        assert (weight * seen).shape == (3,)
        with pytest.raises(RuntimeError, match="meta"):
            (weight * seen).sum().item()
        with pytest.raises(NotImplementedError, match="writes what a weight made into an input"):
            seen.copy_(weight)


def test_a_batch_keeps_what_decides_and_forgets_what_is_seen():
    pixels = torch.rand(2, 3, 3, 4, 4) + 1
    pixels[1, 2] = 0  # a row with one tile fewer
    batch = {
        "input_ids": torch.arange(6).view(2, 3),
        "attention_mask": torch.ones(2, 3).long(),
        "pixel_values": pixels,
    }
    shape = BatchShape.of(batch)
    again = shape.empty()
    assert again["input_ids"].equal(batch["input_ids"])
    assert again["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]], "some other batch has padding"
    assert again["pixel_values"].equal((pixels != 0).float())
    one = shape.with_rows(1)
    assert one.empty()["input_ids"].tolist() == [[0, 1, 2]]
    assert one.empty()["pixel_values"].shape == (1, 3, 3, 4, 4)
    ragged = BatchShape.of({**batch, "pixel_values": torch.ones(7, 5)})
    with pytest.raises(RuntimeError, match="several sizes"):
        ragged.with_rows(1)
