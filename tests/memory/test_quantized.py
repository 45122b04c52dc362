"""Quantised bases: laid out without weights as bitsandbytes loads them, and rehearsed as they train."""

from functools import partial

import pytest
import torch
from bitsandbytes.functional import quantize_4bit
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from taskit.backbone.target_modules import find_locations
from taskit.memory.conditions import BatchShape, Conditions
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.memory.quantized import add_bitsandbytes_rules, quantize_empty
from taskit.memory.rehearsal import rehearse
from taskit.memory.shapes import SCRATCH
from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.step.lora import adapt
from taskit.step.step import make_optimizer, train_step
from taskit.training.trainer import train
from tests.memory.steps import allocated_peak
from tests.world import write_llama, write_rhymes

TASK = "text-generation"
CONFIGS = {
    "8bit": BitsAndBytesConfig(load_in_8bit=True),
    "4bit": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    write_llama(folder / "llama")
    write_rhymes(folder / "rhymes.jsonl", rows=20)
    return folder


def empty(folder, bits):
    config = AutoConfig.from_pretrained(folder / "llama")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    return quantize_empty(model, CONFIGS[bits], "cpu")


def loaded(folder, bits):
    return AutoModelForCausalLM.from_pretrained(
        folder / "llama", quantization_config=CONFIGS[bits], device_map={"": "cpu"}
    )


def standing_bytes(model):
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in standing_tensors(model)}.values())


@pytest.mark.parametrize("bits", CONFIGS)
def test_the_empty_model_weighs_what_the_loaded_one_does(world, bits):
    assert standing_bytes(empty(world, bits)) == standing_bytes(loaded(world, bits))


@pytest.mark.parametrize("bits", CONFIGS)
def test_rehearsed_peak_equals_the_live_storages_of_real_steps(world, bits):
    batch = {"input_ids": torch.ones(2, 12).long(), "labels": torch.ones(2, 12).long()}
    ranks = {place.name: 4 * (k % 2) for k, place in enumerate(find_locations(empty(world, bits)))}
    predicted = rehearse(partial(empty, world, bits), ranks, (), TASK, Conditions(BatchShape.of(batch)))
    model = adapt(loaded(world, bits), ranks, (), TASK)
    model.train()
    live = LiveStorages(scratch=SCRATCH)
    live.follow(standing_tensors(model))
    with live:
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = make_optimizer("adamw", trained, 1e-3, 0.0)
        for _ in range(2):
            train_step(model, optimizer, [{k: v.clone() for k, v in batch.items()}])
    assert predicted == pytest.approx(live.peak, rel=0.01)


def test_what_a_4_bit_product_unpacks_is_what_it_allocates():
    weight, state = quantize_4bit(torch.randn(256, 512), quant_type="nf4", compress_statistics=True)
    packed, rows, nested = weight.view(-1, 1), torch.randn(8, 512), state.state2
    scales = {"absmax_8bit": state.absmax, "absmax_code": nested.code, "absmax_offset": state.offset}
    rest = (state.shape, nested.absmax, state.blocksize, state.quant_type)

    def work():
        torch.ops.bitsandbytes.gemm_4bit.default(rows, packed, *rest, **scales)

    add_bitsandbytes_rules()
    live = LiveStorages(scratch=SCRATCH)
    with live:
        work()
    assert live.peak == pytest.approx(allocated_peak([], work), rel=0.005)


def test_a_quantised_base_is_planned_and_trained(world, tmp_path):
    recipe = Recipe(epochs=1, batch_size=8)
    plan = make_plan(world / "rhymes.jsonl", str(world / "llama"), "100%", recipe=recipe, quantization="4bit")
    result = train(plan, tmp_path / "run")
    assert plan.backbone.quantization == "4bit"
    assert plan.memory.peak_bytes <= plan.budget_bytes
    assert result.predicted_peak_bytes == pytest.approx(result.measured_peak_bytes, rel=0.01)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()
