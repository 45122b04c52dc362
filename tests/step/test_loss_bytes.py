"""The bytes of a step whose loss is taken in chunks: without numbers, and real."""

import gc
from functools import partial

import pytest
import torch

from taskit.backbone.target_modules import find_locations
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.memory.shapes import RULES, SCRATCH
from taskit.memory.simulated_device import simulated_device
from taskit.step.lora import adapt
from taskit.step.loss import loss_of
from taskit.step.step import make_optimizer, train_step
from tests.memory.steps import allocated_peak
from tests.step.text_models import text_model

TASK = "text-generation"
ROWS, TOKENS, WORDS, CHUNK = 4, 32, 3000, 16


class Largest(LiveStorages):
    """LiveStorages that remembers the largest storage that an operator made while it was ``on``."""

    on, largest = False, 0

    def follow(self, tensors):
        tensors = list(tensors)
        if self.on:
            storages = [tensor.untyped_storage() for tensor in tensors]
            self.largest = max([self.largest, *(one.nbytes() for one in storages if one._cdata not in self._alive)])
        super().follow(tensors)


def step_of(name, device, learned, head, live):
    """A function that takes a step of a model with so many ``learned`` tokens, and the model."""
    with torch.device(device):
        model = text_model(name, vocab_size=WORDS)
        ranks = {place.name: 4 for place in find_locations(model)} | ({"lm_head": 4} if head else {})
        model = adapt(model, ranks, (), TASK).train()
    trained = [p for p in model.parameters() if p.requires_grad]

    def step():
        batch = {
            key: torch.zeros(ROWS, TOKENS, dtype=torch.long) for key in ("input_ids", "attention_mask", "labels")
        }
        if device == "cpu":
            batch["attention_mask"][:, 1:] = 1  # a padded token: a mask without any is dropped
            batch["labels"].fill_(-100)[:, -learned // ROWS :] = 5
        optimizer = make_optimizer("adamw", trained, 1e-3, 0.0)
        live.on = True
        train_step(model, optimizer, [batch], loss=partial(loss_of, model, chunk=CHUNK, learned=learned))

    return step, model


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("learned", [ROWS * 20, ROWS * 7])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_step_without_numbers_takes_the_bytes_of_a_real_one(name, learned, head):
    gc.collect()
    found, real = Largest(1, RULES, SCRATCH), Largest()
    step, model = step_of(name, "meta", learned, head, found)
    with simulated_device("cpu"), found:
        found.follow(standing_tensors(model))
        step()
    step, model = step_of(name, "cpu", learned, head, real)
    with real:
        real.follow(standing_tensors(model))
        step()
    step, model = step_of(name, "cpu", learned, head, real)
    assert found.peak == pytest.approx(real.peak, rel=2e-3)
    assert found.peak == pytest.approx(allocated_peak(standing_tensors(model), step), rel=2e-3)
    assert found.largest == real.largest
    assert found.largest < ROWS * TOKENS * WORDS * 4 / 2
