"""Two processes, one run: what torchrun and accelerate launch start."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from taskit.backbone.processors import make_collator
from taskit.data import load
from taskit.errors import PlanError
from taskit.planning.repricing import reprice
from taskit.training.run_folder import RunFolder


def two_processes(plan, folder):
    """The result of training ``plan`` into ``folder``/run by two processes."""
    plan.save(folder / "plan.json")
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m"]
    words += ["taskit", "train", str(folder / "plan.json"), "--out", str(folder / "run"), "--json"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # of the first process alone


@pytest.fixture(scope="module")
def pair(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return folder, two_processes(plan, folder)


def weights(folder):
    return load_file(folder / "run" / "adapter" / "adapter_model.safetensors")


def test_two_processes_train_one_run_within_the_plan_of_each(run, plan, pair):
    folder, result = pair
    assert result["processes"] == 2
    assert result["steps"] == 18, "90 rows in batches of 8 for each of two processes, three times"
    assert result["measured_peak_bytes"] <= plan.budget_bytes
    assert result["before"] == run[1].before
    assert abs(result["after"] - run[1].after) <= 0.2  # two standard errors of an accuracy over 24 rows
    events = RunFolder(folder / "run").read_events()
    assert [event.step for event in events if event.kind == "step"] == list(range(1, 19))
    assert [event.epoch for event in events if event.kind == "epoch"] == [1, 2, 3]
    assert weights(folder).keys()


def shared(plan, **more):
    """The same strategy, with the backbone shared out."""
    plan = replace(plan, training=replace(plan.training, shards=2, **more), budget_bytes=plan.budget_bytes * 2)
    return reprice(plan, load(plan.data.source), make_collator(plan.backbone, plan.data.task, None))


@pytest.mark.parametrize("recomputing", [False, True])
def test_a_shared_backbone_learns_the_same_within_its_own_prediction(plan, pair, tmp_path, recomputing):
    plan = shared(plan, gradient_checkpointing=recomputing, recomputed_blocks=None)
    result = two_processes(plan, tmp_path)
    assert result["predicted_peak_bytes"] == plan.memory.peak_bytes
    assert 0.8 * plan.memory.peak_bytes <= result["measured_peak_bytes"] <= plan.memory.peak_bytes
    found, expected = weights(tmp_path), weights(pair[0])
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-5), name


def test_a_quantised_backbone_is_not_shared(plan):
    quantised = replace(plan, backbone=replace(plan.backbone, quantization="8bit"))
    with pytest.raises(PlanError, match=r"cannot be shared out; plan without --quantize or without --shards\.$"):
        shared(quantised)
