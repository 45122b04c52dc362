"""The whole road of the methods that train nothing, and what they refuse."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import BertForSequenceClassification

from taskit.backbone.loading import empty_model, load_model
from taskit.cli.main import main
from taskit.methods.compose import RULES
from taskit.methods.experts import load_experts
from taskit.planning.plan import Plan
from taskit.transfer.similarity import THRESHOLDS
from taskit.zoo.lora_branch import attached
from tests.conftest import save_adapter
from tests.methods.conftest import PLACES
from tests.world import write_bert, write_topics


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """A backbone, a dataset, and a zoo of three adapters of one rank; and one of adapters of other ranks."""
    folder = tmp_path_factory.mktemp("kitchen")
    write_bert(folder / "bert")
    write_topics(folder / "topics.csv", rows=60)
    model = BertForSequenceClassification.from_pretrained(folder / "bert")
    zoos = {"zoo": dict.fromkeys("abcdef", 3), "odd": {"a": 3, "b": 2}, "mute": {"a": 3, "b": 3}, "empty": {}}
    for zoo, tasks in zoos.items():
        (folder / zoo).mkdir()
        for name, rank in tasks.items():
            peft = save_adapter(model, folder / zoo / name, dict.fromkeys(PLACES, rank), seed=ord(name))
            peft.peft_config["default"].base_model_name_or_path = str(folder / "bert")
            peft.save_pretrained(folder / zoo / name, save_embedding_layers=False)
            if zoo != "mute":
                notes = {"embedding": [float(ord(name) % k) for k in range(2, 34)]}
                (folder / zoo / name / "taskit.json").write_text(json.dumps(notes))
    return folder


@pytest.fixture(scope="module", autouse=True)
def everybody_is_welcome():
    """Adapters of made-up data are like nothing; without a threshold the most similar are taken all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(THRESHOLDS, "embedding", -1.0)
        yield


def plan_words(kitchen, method, *more, zoo="zoo", budget="100%", out="plan.json"):
    words = ["plan", kitchen / "topics.csv", "--backbone", kitchen / "bert", "--zoo", kitchen / zoo]
    words += ["--budget", budget, "--method", method, "--batch-size", "8", *more, "--out", kitchen / out]
    return [str(word) for word in words]


DELTA = ("--method-option", "select=delta")
ROADS = {
    "soup": ("soup",),
    "sum": ("soup", "--method-option", "rule=update"),
    "lorahub": ("lorahub",),
}


@pytest.fixture(scope="module", params=ROADS)
def road(request, kitchen):
    """A plan and the run that it gave."""
    out, run = f"{request.param}.json", kitchen / f"run-{request.param}"
    assert main(plan_words(kitchen, *ROADS[request.param], out=out)) == 0
    assert main(["train", str(kitchen / out), "--out", str(run)]) == 0
    return Plan.load(kitchen / out), run


def test_nothing_is_trained_and_little_is_needed(road):
    plan, run = road
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == result["trainable_parameters"] == plan.trainable_parameters == 0
    assert not list((run / "checkpoints").iterdir())
    assert plan.memory.activation_bytes == 0
    assert plan.memory.peak_bytes < 0.5 * plan.memory.full_lora_bytes
    # what is beside a forward pass in the plan, but not at the same time as its peak: the learned adapters of a soup
    # and LoraHub's head fit, both large only in this tiny model
    assert result["measured_peak_bytes"] <= 1.03 * plan.memory.peak_bytes
    assert plan.memory.peak_bytes <= 1.4 * result["measured_peak_bytes"]


def test_several_are_composed(road):
    plan, _ = road
    assert len(plan.method_options["experts"]) > 1


def test_the_export_computes_what_was_composed(road):
    """Loaded by plain PEFT: the literal composition attached to the base, under the head of the export."""
    plan, run = road
    base = load_model(plan.backbone, task=plan.data.task, labels=plan.data.labels)
    loaded = PeftModel.from_pretrained(base, run / "adapter").eval()
    options = plan.method_options
    adapters = [(one["adapter"], one["revision"]) for one in options["experts"]]
    learned = load_experts(plan.backbone, plan.data, options["zoo"], adapters)
    weights = [1 / len(learned)] * len(learned)
    if plan.method == "lorahub":
        from safetensors import safe_open

        with safe_open(run / "method.safetensors", framework="pt") as file:
            named = json.loads(file.metadata()["decisions"])["weights"]
        weights = [named[name] for name, _ in adapters]
        assert all(abs(weight) <= 1.5 for weight in weights)
    batch = {"input_ids": torch.tensor([[2, 5, 9, 12, 3], [2, 7, 8, 3, 0]])}
    plain = load_model(plan.backbone, task=plan.data.task, labels=plan.data.labels)
    for name in (name for name, _ in plain.named_modules() if name.endswith(("pooler", "classifier"))):
        if not hasattr(loaded.get_submodule(f"base_model.model.{name}"), "modules_to_save"):
            continue  # it is the backbone's own
        trained = loaded.get_submodule(f"base_model.model.{name}").modules_to_save["default"]
        plain.get_submodule(name).load_state_dict(trained.state_dict())
    with attached(plain, RULES[options["rule"]](learned, weights)), torch.no_grad():
        expected = plain(**batch).logits
    with torch.no_grad():
        found = loaded(**batch).logits
    assert (found - expected).abs().max() < (1e-5 if plan.method == "soup" else 1e-3)  # weights are told rounded


def test_evaluate_predict_and_train_again(road, capsys):
    _, run = road
    result = json.loads((run / "result.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(result["after"])
    assert main(["predict", str(run), "a cat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["answer"] in ("animals", "colours")


def test_a_stopped_run_keeps_what_it_has_composed(road, tmp_path):
    """Killed between its preparation and its result: the resumed run ends with the same adapter, byte for byte."""
    plan, run = road
    again = tmp_path / "again"
    plan.save(tmp_path / "plan.json")
    again.mkdir()
    (again / "checkpoints").mkdir()
    for name in ("plan.json", "method.safetensors"):
        (again / name).write_bytes((run / name).read_bytes())
    (again / "state.json").write_text('{"schema": 1, "state": "stopped", "message": ""}')
    assert main(["train", str(tmp_path / "plan.json"), "--out", str(again), "--resume"]) == 0
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (again / "adapter" / name).read_bytes() == (run / "adapter" / name).read_bytes()


def test_a_small_budget_takes_a_small_batch_and_gives_the_same_adapter(kitchen, road):
    plan, run = road
    if plan.method_options["rule"] == "update":
        pytest.skip("told by the other two")
    floor = plan.memory.constant_bytes + plan.memory.module_bytes
    budget = f"{floor + plan.memory.transient_bytes // 2}B"
    words = plan_words(kitchen, *ROADS[plan.method], budget=budget, out="small.json")
    assert main(words) == 0
    small = Plan.load(kitchen / "small.json")
    assert small.training.batch_size < plan.training.batch_size
    assert small.memory.peak_bytes <= small.budget_bytes
    assert main(["train", str(kitchen / "small.json"), "--out", str(kitchen / f"small-{plan.method}")]) == 0
    result = json.loads((kitchen / f"small-{plan.method}" / "result.json").read_text())
    assert result["measured_peak_bytes"] <= 1.03 * small.memory.peak_bytes
    assert result["after"] == json.loads((run / "result.json").read_text())["after"]


@pytest.mark.parametrize(
    ("method", "more", "zoo", "says"),
    [
        ("soup", (), "empty", "has none; name another --zoo"),
        ("lorahub", (), "empty", "at least 2"),
        ("soup", (), "odd", "rule=update"),
        ("lorahub", (), "odd", "rule=update"),
        ("soup", (), "mute", "select=delta"),
        ("soup", ("--last-blocks", "1"), "zoo", "constraints"),
        ("soup", ("--method-option", "rule=mean"), "zoo", "one of factors, update"),
        ("lorahub", ("--method-option", "most=1"), "zoo", "at least 2"),
    ],
)
def test_what_cannot_be_composed_is_refused_before_any_file_is_written(kitchen, method, more, zoo, says, capsys):
    assert main(plan_words(kitchen, method, *more, zoo=zoo, out="never.json")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert says in error
    assert error.endswith(".")
    assert not (kitchen / "never.json").exists()


def test_adapters_of_other_ranks_are_summed_exactly(kitchen):
    words = plan_words(kitchen, "soup", "--method-option", "rule=update", zoo="odd", out="odd.json")
    assert main(words) == 0
    assert {place.rank for place in Plan.load(kitchen / "odd.json").locations} == {0, 5}


def test_adapters_that_say_nothing_of_their_data_are_asked_themselves(kitchen):
    assert main(plan_words(kitchen, "soup", *DELTA, zoo="mute", out="mute.json")) == 0
    plan = Plan.load(kitchen / "mute.json")
    assert plan.similarity_measure == "delta"
    best = max(plan.similarity, key=lambda one: one.phi)
    assert best.used
    assert all(one.used == (one.phi > 0 or one is best) for one in plan.similarity)


def test_a_budget_below_all_training_names_what_works(kitchen, capsys):
    model = empty_model(Plan.load(kitchen / "soup.json").backbone, task="text-classification", labels=("a", "b"))
    weights = sum(p.numel() * 4 for p in model.parameters())
    whole = ("--micro-batch", "8", "--no-gradient-checkpointing")
    capsys.readouterr()
    assert main(plan_words(kitchen, "taskit", *whole, budget=f"{weights + 60_000}B", out="never.json")) == 1
    assert "--method soup or lorahub" in capsys.readouterr().err
    assert main(plan_words(kitchen, "taskit", budget=f"{weights}B", out="never.json")) == 1
    assert "soup" not in capsys.readouterr().err
    assert main(plan_words(kitchen, "soup", budget=f"{weights}B", out="never.json")) == 1
    assert "one row needs" in capsys.readouterr().err


def test_a_plan_whose_ranks_were_edited_is_refused(kitchen, capsys, road, tmp_path):
    plan, _ = road
    values = plan.to_dict()
    values["locations"][0]["rank"] = 1
    (kitchen / "edited.json").write_text(json.dumps(values))
    assert main(["train", str(kitchen / "edited.json"), "--out", str(tmp_path / "edited")]) == 1
    assert "run taskit plan again" in capsys.readouterr().err.splitlines()[-1]
