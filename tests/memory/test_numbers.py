"""Models that meta tensors cannot take through a step: priced by real steps of two rows and three, and said aloud."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from taskit.backbone.target_modules import find_locations
from taskit.errors import PlanError
from taskit.memory.conditions import BatchShape, Conditions
from taskit.memory.live import LiveStorages
from taskit.memory.numbers import extrapolate_peak
from taskit.planning.pricing import price
from taskit.planning.step_spec import StepSpec
from tests.tiny import tiny_model

ROWS = 6
BATCH = BatchShape((("input_ids", (ROWS, 10), "int64"), ("labels", (ROWS, 10), "int64")))


def on_meta(hook=None, name="llama"):
    with torch.device("meta"):
        model = tiny_model(name)
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


def step_spec_of(hook, told, name="llama"):
    build = partial(on_meta, hook, name)
    return StepSpec(build, find_locations(build()), (), 0, "text-generation", Conditions(BATCH), told.append)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_control_flow_on_numbers_is_measured_on_small_real_steps(name):
    told, quiet = [], []
    plain, looking = price(step_spec_of(None, quiet, name)), price(step_spec_of(look, told, name))
    assert quiet == []
    assert "two rows and with three" in told[0]
    assert looking.full_lora_bytes == pytest.approx(plain.full_lora_bytes, rel=0.01)
    assert looking.no_update_bytes == pytest.approx(plain.no_update_bytes, rel=0.01)
    ranks = [4 if k % 3 == 0 else 0 for k in range(len(plain.profile.locations))]
    assert looking.profile.bytes(ranks) == pytest.approx(plain.profile.bytes(ranks), rel=0.01)
    assert step_spec_of(look, [], name).rehearse(ranks) == pytest.approx(
        step_spec_of(None, [], name).rehearse(ranks), rel=0.01
    )


def test_a_peak_that_moves_with_the_rows_is_followed():
    # at two rows the moment with the large constant is the highest, at a hundred the one that grows
    def step(conditions):
        live = LiveStorages(keep=True)
        for size in (1000, 10 * conditions.batch.rows):
            live.history.append(size)
        live.peak = max(live.history)
        return live

    assert extrapolate_peak(step, replace(Conditions(BATCH), batch=BATCH.with_rows(1000))) == 10_000
    assert extrapolate_peak(step, Conditions(BATCH)) == 1000


def test_steps_of_different_control_flow_are_compared_by_their_peaks():
    def step(conditions):
        live = LiveStorages(keep=True)
        live.history = [0] * conditions.batch.rows
        live.peak = 7 + 10 * conditions.batch.rows
        return live

    assert extrapolate_peak(step, Conditions(BATCH)) == 7 + 10 * ROWS


def test_a_quantised_model_that_needs_numbers_is_refused():
    step_spec = replace(step_spec_of(look, []), quantization="4bit")
    with pytest.raises(PlanError, match=r"in 4bit cannot be foreseen.*plan without --quantize\.$"):
        step_spec.trace()


def test_what_fails_on_numbers_too_is_named():
    with pytest.raises(PlanError, match=r"strange::operator.*choose another"):
        step_spec_of(stop, []).rehearse((1,) * len(find_locations(on_meta())))
