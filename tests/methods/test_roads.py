"""Every method from the command line to a plain PEFT adapter, and what stops one before it trains."""

import json
import os
from dataclasses import replace

import pytest
from safetensors import safe_open

from taskit.cli.main import main
from taskit.errors import PlanError, RunError
from taskit.methods import METHODS, parametrization_of
from taskit.methods.interpolated import Interpolated
from taskit.planning.plan import Plan
from taskit.training.checkpoint import Checkpoints
from taskit.training.inference import evaluate_run
from taskit.training.preparation import KEPT
from taskit.training.run_folder import RunFolder
from taskit.training.runs import Run
from taskit.training.trainer import train
from tests.training.test_survival import always_saving, kill_at_call, killed, same_weights

# soup and lorahub train nothing, and have roads of their own in test_composing
TRAINED_OWN_WAY = [name for name in METHODS if name not in ("taskit", "uniform", "soup", "lorahub")]


@pytest.mark.parametrize("method", TRAINED_OWN_WAY)
def test_the_road(method, plan_with, tmp_path, capsys):
    path = plan_with(method)
    plan, run = Plan.load(path), tmp_path / "run"
    assert plan.method == method
    assert plan.memory.peak_bytes <= plan.budget_bytes
    assert main(["train", str(path), "--out", str(run), "--json"]) == 0
    assert Plan.load(run / "plan.json") == plan  # priced again, and found the same
    result = Run(run).result
    # a π run may train the weights of its experts alone, so that few gradients wait for the second micro-batch
    assert 0.94 * plan.memory.peak_bytes <= result.measured_peak_bytes <= 1.03 * plan.memory.peak_bytes
    assert result.trainable_parameters == plan.trainable_parameters
    assert evaluate_run(run)[1] == pytest.approx(result.after)
    capsys.readouterr()
    with safe_open(run / "adapter" / "adapter_model.safetensors", framework="pt") as file:
        names = list(file.keys())
        update = sum(float(file.get_tensor(name).abs().sum()) for name in names if ".lora_B." in name)
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) or ".classifier." in name for name in names)
    assert any(".lora_B." in name for name in names)
    if method == "head":
        assert update == 0


@pytest.fixture(scope="module")
def pi_run(world, tmp_path_factory):
    """A π run that is trained in two phases, and its plan."""
    folder = tmp_path_factory.mktemp("pi")
    words = ["plan", str(world / "topics.csv"), "--backbone", str(world / "bert"), "--zoo", str(world / "zoo")]
    words += ["--budget", "100%", "--method", "taskit+pi", "--method-option", "train=weights", "--epochs", "1"]
    words += ["--method-option", "select=similarity", "--out", str(folder / "plan.json")]
    assert main(words) == 0
    plan = Plan.load(folder / "plan.json")
    return folder / "run", train(plan, folder / "run"), plan


def test_kills_change_nothing(pi_run, tmp_path):
    folder, result, plan = pi_run
    killed_run, often = tmp_path / "run", always_saving(plan)
    killed(often, killed_run, lambda: kill_at_call(Checkpoints, "_write", 3), resume=False)
    assert (killed_run / "warm-up").exists()  # the target was learning alone
    killed(often, killed_run, lambda: kill_at_call(os, "fsync", 1))
    killed(often, killed_run, lambda: kill_at_call(RunFolder, "append", 5))
    assert (killed_run / KEPT).exists()
    assert not (killed_run / "warm-up").exists()
    resumed = train(plan, killed_run, resume=True)
    assert same_weights(killed_run, folder)
    assert (resumed.after, resumed.trainable_parameters) == (result.after, result.trainable_parameters)


def test_a_resumed_run_asks_the_zoo_no_more(pi_run, tmp_path, monkeypatch):
    _, _, plan = pi_run
    steps = iter(range(100))

    def stop(event):
        if event.kind == "step" and next(steps) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "run", watch=stop)
    monkeypatch.setattr(Interpolated, "prepare", None)
    train(plan, tmp_path / "run", resume=True)
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / KEPT).write_bytes(b"half")
    with pytest.raises(RunError, match="damaged"):
        train(plan, tmp_path / "run", resume=True)


def test_an_expert_that_is_gone_is_one_sentence(pi_run, tmp_path):
    _, _, plan = pi_run
    experts = [{**expert, "adapter": "moved"} for expert in plan.method_options["experts"]]
    broken = replace(plan, method_options={**plan.method_options, "experts": experts})
    with pytest.raises(PlanError, match=r"adapter moved, which .* lacks; bring it back, or plan again\.$"):
        train(broken, tmp_path / "run")


def refused(capsys, *words):
    assert main([*words]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("taskit: ")
    assert said.endswith(".")
    return said


@pytest.mark.parametrize(
    ("method", "more", "says"),
    [
        ("pi", ("--zoo", "EMPTY"), "zoo has none for this backbone"),
        ("pi", ("--method-option", "experts=0"), "at least 1"),
        ("pi", ("--method-option", "rule=magic"), "update, parameters"),
        ("pi", ("--method-option", "speed=1"), "no option 'speed'"),
        ("taskit", ("--method-option", "experts=2"), "it has none"),
        ("pear", ("--method-option", "ratio=2"), "below 1"),
        ("pear", ("--method-option", "ratio"), "not understood"),
        ("taskit+pear", ("--last-blocks", "1", "--exclude", "*attention*"), "too few"),
        ("cdra", ("--method-option", "gamma=0.0001"), "rank 0 everywhere"),
        ("cdra", ("--ranks", "4"), "leave --ranks"),
    ],
)
def test_what_a_method_cannot_serve_is_refused_at_planning(method, more, says, world, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    more = [str(tmp_path / "empty") if word == "EMPTY" else word for word in more]
    words = ["plan", str(world / "topics.csv"), "--backbone", str(world / "bert"), "--budget", "100%"]
    words += ["--method", method, "--epochs", "1", *more, "--out", str(tmp_path / "plan.json")]
    assert says in refused(capsys, *words)
    assert not (tmp_path / "plan.json").exists()


def test_an_edited_plan_that_makes_no_sense_is_refused(pi_run):
    _, _, plan = pi_run
    with pytest.raises(PlanError, match="no method called 'magic'"):
        parametrization_of("magic", plan.method_options)
    with pytest.raises(PlanError, match="method_options"):
        parametrization_of(plan.method, {})


def test_the_plan_keeps_what_the_method_decided(pi_run, tmp_path):
    _, _, plan = pi_run
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert [expert["adapter"] for expert in plan.method_options["experts"]] == sorted(
        ("wide", "last"), key=lambda name: -next(s.phi for s in plan.similarity if s.adapter == name)
    )
    values = json.loads((tmp_path / "plan.json").read_text())
    del values["method_options"]
    (tmp_path / "plan.json").write_text(json.dumps({**values, "method": "taskit"}))
    assert Plan.load(tmp_path / "plan.json").method_options == {}
