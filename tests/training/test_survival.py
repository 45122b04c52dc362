"""Runs that are killed, interrupted or run out of room, at chosen moments; benchmarks/training.py kills at random."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from taskit.cli.main import main
from taskit.errors import BudgetError, RunError
from taskit.training import checkpoint, export, trainer
from taskit.training.checkpoint import Checkpoints, find_checkpoints
from taskit.training.peak import cap_allocator
from taskit.training.run_folder import RunFolder
from taskit.training.runs import Run
from taskit.training.trainer import train


def always_saving(plan):
    return replace(plan, training=replace(plan.training, checkpoint_seconds=0.0))


def kill_self(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_call(owner, name, call):
    """Let ``owner.name`` kill the process when it is called for the ``call``-th time."""
    real, calls = getattr(owner, name), iter(range(1, call + 1))
    last = call

    def counted(*args, **kwargs):
        return kill_self() if next(calls, last) == last else real(*args, **kwargs)

    setattr(owner, name, counted)


def killed(plan, folder, prepare, resume=True):
    """Train in a fork that ``prepare`` has set up to kill itself."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            train(plan, folder, resume=resume)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert Run(folder).state.name == "failed"
    assert "gone" in Run(folder).state.message


def same_weights(one, two):
    ours, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, two))
    assert ours.keys() == theirs.keys()
    return all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-6) for name in ours)


def steps_done(folder):
    return json.loads((find_checkpoints(folder / "checkpoints")[-1] / "progress.json").read_text())["step"]


def test_kills_at_the_worst_moments_change_nothing(run, plan, tmp_path):
    folder, often = tmp_path / "run", always_saving(plan)
    # while the head is fitted; then inside, just after, and between checkpoints; then in the final save
    killed(often, folder, lambda: kill_at_call(trainer, "fit_linear_head", 1), resume=False)
    assert find_checkpoints(folder / "checkpoints") == []
    killed(often, folder, lambda: kill_at_call(checkpoint.shutil, "copyfile", 1))
    assert find_checkpoints(folder / "checkpoints") == []
    killed(often, folder, lambda: kill_at_call(torch, "save", 8))
    assert steps_done(folder) == 5, "the 8th write, after a trial and the start, was that of step 6"
    killed(often, folder, lambda: kill_at_call(Checkpoints, "_forget", 3))
    assert steps_done(folder) == 8
    assert len(find_checkpoints(folder / "checkpoints")) == 2
    killed(often, folder, lambda: kill_at_call(RunFolder, "append", 6))
    killed(often, folder, lambda: kill_at_call(export, "write_card", 1))
    assert not (folder / "adapter").exists()
    assert steps_done(folder) == 33
    result = train(plan, folder, resume=True)
    assert same_weights(folder, run[0])
    assert (result.before, result.after, result.steps) == (run[1].before, run[1].after, run[1].steps)
    assert not list(folder.rglob("*.part"))
    resumed = [event.step for event in Run(folder).events() if event.kind == "resumed"]
    assert resumed == sorted(resumed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_first(number, run, plan, tmp_path):
    def interrupt(event):
        if event.kind == "step" and event.step == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "run", watch=interrupt)
    assert Run(tmp_path / "run").state.name == "stopped"
    assert steps_done(tmp_path / "run") == 5
    train(plan, tmp_path / "run", resume=True)
    assert same_weights(tmp_path / "run", run[0])


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(run, plan, tmp_path, monkeypatch):
    real, calls = torch.save, iter(range(100))

    def full(states, path):
        if next(calls) == 4:
            Path(path).write_bytes(b"half")
            raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")
        real(states, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"make room .*\.$"):
        train(always_saving(plan), tmp_path / "run")
    state = Run(tmp_path / "run").state
    assert state.name == "failed"
    assert "make room" in state.message
    assert not list((tmp_path / "run").rglob("*.part"))
    assert steps_done(tmp_path / "run") == 2
    monkeypatch.undo()
    train(plan, tmp_path / "run", resume=True)
    assert same_weights(tmp_path / "run", run[0])


def test_no_room_for_an_event_is_one_sentence(plan, tmp_path, monkeypatch, capsys):
    plan.save(tmp_path / "plan.json")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "append", full)
    assert main(["train", str(tmp_path / "plan.json"), "--out", str(tmp_path / "run")]) == 1
    assert "No space left" in capsys.readouterr().err.splitlines()[-1]
    assert Run(tmp_path / "run").state.name == "failed"


def test_a_folder_that_cannot_be_made_is_one_sentence(plan, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        train(plan, tmp_path / "file" / "run")


def test_a_checkpoint_of_other_ranks_or_a_damaged_one_is_refused(plan, tmp_path):
    def stop(event):
        if event.kind == "step":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "run", watch=stop)
    first, *rest = plan.locations
    other = replace(plan, locations=(replace(first, rank=0 if first.rank else 1), *rest), budget_bytes=2**30)
    RunFolder(tmp_path / "run").write_json("plan.json", other.to_dict())
    with pytest.raises(RunError, match="other ranks"):
        train(plan, tmp_path / "run", resume=True)
    RunFolder(tmp_path / "run").write_json("plan.json", plan.to_dict())
    (find_checkpoints(tmp_path / "run" / "checkpoints")[-1] / "optimizer.pt").write_bytes(b"")
    with pytest.raises(RunError, match="damaged"):
        train(plan, tmp_path / "run", resume=True)


def test_the_longest_batch_is_tried_before_the_first_step(plan, tmp_path, monkeypatch):
    """A prediction that is too low, as a kernel unknown to the plan would make it."""
    low = replace(plan, memory=replace(plan.memory, peak_bytes=plan.memory.peak_bytes // 2))
    low = replace(low, budget_bytes=low.memory.peak_bytes)
    monkeypatch.setattr(trainer, "reprice", lambda plan, *_: plan)
    events = []
    with pytest.raises(BudgetError, match=r"--tighten\.$"):
        train(low, tmp_path / "run", watch=events.append)
    assert {event.kind for event in events} == {"note"}
    assert "longest batch" in Run(tmp_path / "run").state.message
    assert find_checkpoints(tmp_path / "run" / "checkpoints") == []


def test_tightening_keeps_the_mathematics(run, plan, tmp_path):
    """At half the activations the same rows make each step: the same losses, until rounding has grown too large."""
    half = replace(plan, training=plan.training.passing(plan.training.micro_batch // 2))
    cheaper = trainer._load_and_reprice(replace(half, budget_bytes=2**40), tighten=False)[0].memory.peak_bytes
    tight = replace(plan, budget_bytes=(cheaper + plan.memory.peak_bytes) // 2)
    with pytest.raises(BudgetError, match="budget"):
        train(tight, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    events = []
    train(tight, tmp_path / "run", tighten=True, watch=events.append)
    done = Run(tmp_path / "run")
    assert done.plan.training == half.training
    assert done.result.measured_peak_bytes <= tight.budget_bytes
    assert done.result.steps == run[1].steps
    begun, before = ([event.loss for event in each if event.kind == "step"][:4] for each in (events, run[2]))
    assert begun == pytest.approx(before, rel=1e-3)


def test_a_gpu_is_capped_at_the_budget(monkeypatch):
    said = []
    properties = type("Properties", (), {"total_memory": 2**34})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *words: said.append(words))
    cap_allocator(torch.device("cuda"), 2**32)
    cap_allocator(torch.device("cpu"), 2**32)
    assert said == [(0.25, torch.device("cuda"))]
