"""Models that meta tensors cannot take through a step: priced by real steps of one row and two, and said aloud."""

from functools import partial

import pytest
import torch

from taskit.errors import PlanError
from taskit.locations import find_locations
from taskit.memory.conditions import BatchShape, Conditions
from taskit.pricing import Stage, price
from tests.tiny import tiny_model

ROWS = 6
BATCH = BatchShape((("input_ids", (ROWS, 10), "int64"), ("labels", (ROWS, 10), "int64")))


def on_meta(hook=None):
    with torch.device("meta"):
        model = tiny_model("llama")
    if hook:
        model.register_forward_pre_hook(hook)
    return model


def look(_model, _inputs):
    """A data-dependent branch."""
    if torch.zeros(2).sum().item() > 0:
        raise AssertionError


def stop(_model, _inputs):
    """An operator that this machine has no kernel for."""
    raise NotImplementedError("strange::operator has no kernel")


def stage_of(hook, told):
    build = partial(on_meta, hook)
    return Stage(build, find_locations(on_meta()), (), 0, "text-generation", Conditions(BATCH), told.append)


def test_control_flow_on_numbers_is_measured_on_small_real_steps():
    told, silent = [], []
    plain, looking = price(stage_of(None, silent)), price(stage_of(look, told))
    assert silent == []
    assert "one row and with two" in told[0]
    assert looking.full_lora_bytes == pytest.approx(plain.full_lora_bytes, rel=0.05)
    assert looking.no_update_bytes == pytest.approx(plain.no_update_bytes, rel=0.05)
    ranks = [4 if k % 3 == 0 else 0 for k in range(len(plain.profile.locations))]
    assert looking.profile.bytes(ranks) == pytest.approx(plain.profile.bytes(ranks), rel=0.05)


def test_what_fails_on_numbers_too_is_named():
    with pytest.raises(PlanError, match=r"strange::operator.*choose another"):
        stage_of(stop, []).rehearse((1,) * len(find_locations(on_meta())))
