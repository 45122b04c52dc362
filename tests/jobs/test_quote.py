"""What a machine is and what a run on it takes, against counts by hand."""

from dataclasses import replace

import pytest
import torch
from huggingface_hub import HfApi

from taskit.backbone.processors import make_collator
from taskit.data import load
from taskit.errors import BudgetError, HubError
from taskit.jobs.machine import find_machine, list_machines
from taskit.jobs.quote import SETUP_SECONDS, forward_operations, make_quote
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import build_step_spec


def test_a_machine_is_as_the_hub_lists_it(hub):
    machine = find_machine(HfApi(), "t4-small")
    assert (machine.device, machine.cores) == ("cuda", 4)
    assert 3600 * machine.dollars_per_second == pytest.approx(0.40, abs=0.001)
    assert machine.memory_bytes == 16 * 10**9
    assert find_machine(HfApi(), "cpu-basic").device == "cpu"
    assert hub.requests.count("GET /api/jobs/hardware") == 2


def test_the_list_leaves_out_several_gpus_and_begins_with_the_cheapest(hub):
    assert [(one.flavor, round(one.dollars_per_hour, 2)) for one in list_machines(HfApi())] == [
        ("cpu-basic", 0.01),
        ("t4-small", 0.40),
    ]
    assert hub.requests.count("GET /api/jobs/hardware") == 1


@pytest.mark.parametrize(("flavor", "says"), [("t5-huge", "not on offer"), ("l4x4", "several GPUs")])
def test_another_machine_is_one_sentence_that_names_the_choice(flavor, says, hub):
    with pytest.raises(HubError, match=rf"{says}.*cpu-basic, t4-small\.$"):
        find_machine(HfApi(), flavor)
    assert hub.requests.count("GET /api/jobs/hardware") == 1


def test_operations_are_those_of_the_matrices(plan):
    """2 B T per weight of the blocks, 2 B per weight of the pooler and of the classifier."""
    data = load(plan.data.source)
    collator = make_collator(plan.backbone, plan.data.task, None)
    step_spec = build_step_spec(plan.backbone, data, Recipe(batch_size=4), collator)
    rows, length = next(shape for name, shape, _ in step_spec.conditions.batch.tensors if name == "input_ids")
    blocks = [
        m for name, m in step_spec.build().named_modules() if ".layer." in name and isinstance(m, torch.nn.Linear)
    ]
    weights = sum(m.in_features * m.out_features for m in blocks)
    heads = 2 * rows * (32 * 32 + 32 * 2)
    assert forward_operations(step_spec) == 2 * rows * length * weights + heads


def test_the_timeout_lies_above_the_estimate_and_more_work_takes_longer(plan, hub):
    quote = make_quote(plan, "cpu-basic", HfApi())
    assert SETUP_SECONDS < quote.seconds < quote.timeout_seconds
    assert quote.dollars == pytest.approx(quote.seconds / 60 * 0.000167)
    assert quote.most_dollars > quote.dollars
    longer = replace(plan, training=replace(plan.training, epochs=10**8))
    assert make_quote(longer, "cpu-basic", HfApi()).seconds > 100 * quote.seconds
    on_a_gpu = make_quote(longer, "t4-small", HfApi(), tighten=True)  # whose allocator rounds up
    assert on_a_gpu.seconds < make_quote(longer, "cpu-basic", HfApi()).seconds
    assert hub.requests.count("GET /api/jobs/hardware") == 4


def test_a_machine_with_too_little_memory_is_refused(plan, hub, monkeypatch):
    monkeypatch.setattr("taskit.jobs.machine.GB", plan.memory.peak_bytes // 32)
    with pytest.raises(BudgetError, match=r"^cpu-basic has .* choose a larger machine"):
        make_quote(plan, "cpu-basic", HfApi())
    assert hub.requests == ["GET /api/jobs/hardware"]


def test_a_plan_that_does_not_fit_there_is_refused_before_anything_is_paid(plan, hub):
    small = replace(plan, budget_bytes=plan.memory.peak_bytes // 2)
    with pytest.raises(BudgetError, match=r"--tighten\.$"):
        make_quote(small, "t4-small", HfApi())
    assert make_quote(small, "t4-small", HfApi(), tighten=True).seconds > 0
    assert not [line for line in hub.requests if line.startswith("POST")]
