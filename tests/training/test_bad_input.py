"""Runs that cannot go on, each with one sentence, and with its folder as it was."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from taskit.errors import BackboneError, PlanError, RunError, TaskITError
from taskit.training.run_folder import RunFolder
from taskit.training.trainer import train


@pytest.fixture
def own(plan, world, tmp_path):
    """The plan with data and backbone that a test may change."""
    shutil.copytree(world / "bert", tmp_path / "bert")
    shutil.copyfile(world / "topics.csv", tmp_path / "topics.csv")
    return replace(
        plan,
        data=replace(plan.data, source=str(tmp_path / "topics.csv")),
        backbone=replace(plan.backbone, id=str(tmp_path / "bert")),
    )


@pytest.fixture
def begun(own, tmp_path):
    """A stopped run, as a trainer leaves it before its first checkpoint."""
    folder = RunFolder(tmp_path / "run")
    folder.reserve()
    folder.write_json("plan.json", own.to_dict())
    folder.set_state("stopped")
    return folder


def files(folder):
    left_out = ("lock", "owner.json", "state.json")
    return {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file() and p.name not in left_out}


def refused(plan, folder, kind, says):
    """Resuming raises ``kind`` with one sentence and changes nothing but the state."""
    before = files(folder)
    with pytest.raises(kind, match=says) as error:
        train(plan, folder.path, resume=True)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)
    assert files(folder) == before


def test_other_data_than_was_planned_for(own, begun, tmp_path):
    with (tmp_path / "topics.csv").open("a") as rows:
        rows.write("the new red cat,animals\n")
    refused(own, begun, RunError, "has changed")
    assert "has changed" in begun.read_state().message
    with pytest.raises(RunError, match="has changed"):
        train(own, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_data_that_is_gone(own, begun, tmp_path):
    (tmp_path / "topics.csv").unlink()
    refused(own, begun, TaskITError, "does not exist")


def test_another_revision_of_the_backbone(own, begun, tmp_path):
    config = tmp_path / "bert" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "layer_norm_eps": 1e-5}))
    refused(own, begun, BackboneError, "not those that were planned with")


def test_a_run_of_another_version(own, begun):
    begun.write_json("state.json", {"schema": 7, "state": "stopped"})
    refused(own, begun, RunError, "another version")
    begun.set_state("stopped")
    begun.write_json("plan.json", {**own.to_dict(), "schema": 7})
    refused(own, begun, PlanError, "schema")


@pytest.mark.parametrize("kept", [[], ["state.json"]])
def test_a_run_that_is_half_deleted(kept, own, begun):
    for path in begun.path.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(own, begun, RunError, r"plan\.json")


def test_a_gpu_that_vanished(own, begun):
    checkpoint = begun.checkpoints / "epoch-0001-step-00000007"
    checkpoint.mkdir()
    (checkpoint / "progress.json").write_text(json.dumps({"device": "cuda"}))
    refused(own, begun, RunError, "GPU, which is gone")


@pytest.mark.parametrize("values", [{"quantization": "8bit"}, {"quantization": "4bit"}])
def test_a_base_in_fewer_bits_without_bitsandbytes(values, own, tmp_path, monkeypatch):
    _without_bitsandbytes(monkeypatch)
    with pytest.raises(BackboneError, match=r"needs bitsandbytes.*pip install bitsandbytes\.$"):
        train(replace(own, backbone=replace(own.backbone, **values)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_8_bit_optimizer_without_bitsandbytes(own, tmp_path, monkeypatch):
    _without_bitsandbytes(monkeypatch)
    with pytest.raises(PlanError, match=r"needs bitsandbytes; run pip install bitsandbytes\.$"):
        train(replace(own, training=replace(own.training, optimizer="adamw8bit")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _without_bitsandbytes(monkeypatch):
    real = importlib.util.find_spec

    def find_spec(name, *more):
        return None if name.partition(".")[0] == "bitsandbytes" else real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr("taskit.step.step.find_spec", find_spec)


def test_a_folder_that_may_not_be_written(own, tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(RunError, match=r"cannot be written \(Permission denied\); choose another --out\.$"):
        train(own, tmp_path / "run")


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_a_model_in_pieces_is_refused_where_the_plan_does_not_foresee_it(name, own, tmp_path, monkeypatch):
    """As accelerate launch asks for it, whose --use_fsdp sets no more than this."""
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(
        RunError,
        match=r"cannot be trained with .*; make the plan with --shards N, .*\.$",
    ):
        train(own, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_shares_that_are_not_the_processes(own, tmp_path):
    shared = replace(own, training=replace(own.training, shards=2))
    with pytest.raises(RunError, match=r"among 2 processes and this is a run of 1; .* --num_processes 2\.$"):
        train(shared, tmp_path / "run")
    assert not (tmp_path / "run").exists()
