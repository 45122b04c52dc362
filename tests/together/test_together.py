"""Several datasets trained at once: the whole road of `taskit together`, its exports, and what it refuses."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from taskit.backbone.loading import load_model
from taskit.cli.main import main
from taskit.errors import RunError
from taskit.planning.recipe import Recipe
from taskit.together import training as joint_training
from taskit.together.plan import JointPlan, plan_together
from taskit.together.training import train_together
from tests.world import write_bert, write_rhymes, write_topics

NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A backbone of three blocks, three tables of classes and one of texts to write."""
    folder = tmp_path_factory.mktemp("tables")
    write_bert(folder / "bert")
    for seed, name in enumerate(NAMES):
        write_topics(folder / f"{name}.csv", rows=40 + 10 * seed, seed=seed)
    text = (folder / "third.csv").read_text().replace("animals", "beasts")
    (folder / "third.csv").write_text(text)
    write_rhymes(folder / "rhymes.jsonl")
    return folder


@pytest.fixture(scope="module", autouse=True)
def the_last_epoch_is_kept():
    """Whatever a validation of six rows says: that of the start would leave every lora_B at zero."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taskit.training.loop.better", lambda *_: True)
        yield


def words(tables, *more, names=NAMES, out="together", budget="80%"):
    data = [tables / f"{name}.csv" for name in names]
    given = ["together", *data, "--backbone", tables / "bert", "--budget", budget, "--out", tables / out]
    return [str(word) for word in (*given, "--batch-size", "4", "--epochs", "2", *more)]


@pytest.fixture(scope="module")
def joint(tables):
    assert main(words(tables, "--groups", "1,2,3", "--learning-rate", "0.01")) == 0
    return tables / "together"


def tensors(joint, name):
    return load_file(joint / name / "adapter" / "adapter_model.safetensors")


def test_each_dataset_has_a_finished_run_that_every_verb_takes(joint, capsys):
    for name, rows in zip(NAMES, (8, 10, 12), strict=True):
        result = json.loads((joint / name / "result.json").read_text())
        capsys.readouterr()
        assert main(["evaluate", str(joint / name), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["value"] == pytest.approx(result["after"])
        assert found["rows"] == rows
    assert main(["predict", str(joint / "third"), "a cat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["answer"] in ("beasts", "colours")
    assert main(["runs", "--root", str(joint.parent), "--json"]) == 0
    assert {run["state"] for run in json.loads(capsys.readouterr().out)} == {"done"}


def test_the_peak_was_foreseen(joint):
    for folder in (joint, *(joint / name for name in NAMES)):
        result = json.loads((folder / "result.json").read_text())
        assert result["measured_with"] == "cpu-storages"
        assert 0.97 * result["measured_peak_bytes"] <= result["predicted_peak_bytes"]
        assert result["predicted_peak_bytes"] <= 1.15 * result["measured_peak_bytes"]


def test_groups_share_their_pairs_and_nobody_else_does(joint):
    """In the files themselves, stage by stage: what is shared is the same numbers, what is not is not."""
    plan = JointPlan.load(joint / "together.json")
    found = [tensors(joint, name) for name in NAMES]
    pairs = [name for name in found[0] if name.endswith("lora_B.weight")]
    assert pairs
    for name in pairs:
        block = int(name.split("layer.")[1].split(".")[0])
        for group in plan.tree.stages[block]:
            for t in range(3):
                same = torch.equal(found[group[0]][name], found[t][name])
                assert same == (t in group)


def test_the_tree_is_nested_written_and_drawn(joint):
    plan = JointPlan.load(joint / "together.json")
    assert [len(groups) for groups in plan.tree.stages] == [1, 2, 3]
    assert plan.tree.tasks == NAMES
    drawn = "".join(ET.parse(joint / "tree.svg").getroot().itertext())
    assert all(name in drawn for name in NAMES)


def test_every_export_is_a_plain_lora(joint):
    """The branched forward is that of the exports: the same numbers by PEFT alone, in a model loaded afresh."""
    plan = JointPlan.load(joint / "together.json")
    batch = {"input_ids": torch.tensor([[2, 5, 9, 12, 3]])}
    for name, one in zip(NAMES, plan.plans, strict=True):
        base = load_model(one.backbone, task=one.data.task, labels=one.data.labels)
        loaded = PeftModel.from_pretrained(base, joint / name / "adapter").eval()
        config = json.loads((joint / name / "adapter" / "adapter_config.json").read_text())
        assert config["peft_type"] == "LORA"
        with torch.no_grad():
            with_lora = loaded(**batch).logits
            for layer in loaded.modules():
                if isinstance(layer, LoraLayer):
                    layer.enable_adapters(False)
            without = loaded(**batch).logits
        assert (with_lora - without).abs().max() > 1e-4
        assert with_lora.shape == (1, len(one.data.labels))


def test_a_stopped_training_goes_on_to_the_same_end(tables, joint):
    plan = replace(JointPlan.load(joint / "together.json"))
    out = tables / "stopped"

    def stop_after_an_epoch(event):
        if event.kind == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_together(plan, out, watch=stop_after_an_epoch)
    assert json.loads((out / "state.json").read_text())["state"] == "stopped"
    assert main(["together", "--resume", "--out", str(out), "--json"]) == 0
    for name in NAMES:
        for key, tensor in tensors(joint, name).items():
            torch.testing.assert_close(load_file(out / name / "adapter" / "adapter_model.safetensors")[key], tensor)
    with pytest.raises(RunError, match="finished"):
        train_together(plan, out, resume=True)


def test_an_epoch_shows_every_row_of_the_largest_task_once(tables, joint):
    plan = JointPlan.load(joint / "together.json")
    rows = [set(), set(), set()]
    seen = []

    class Counted(joint_training.JointBatches):
        def steps(self, given, epoch, skip=0):
            for batches in super().steps(given, epoch, skip):
                seen.append([len(batch["labels"]) for batch in batches])
                for batch in batches:
                    rows[batch["task"]].update(map(tuple, batch["input_ids"].tolist()))
                yield batches

    original, joint_training.JointBatches = joint_training.JointBatches, Counted
    try:
        one_epoch = tuple(replace(one, training=replace(one.training, epochs=1)) for one in plan.plans)
        train_together(replace(plan, plans=one_epoch), tables / "counted")
    finally:
        joint_training.JointBatches = original
    assert len(seen) == 11  # of 48 training rows of the third 44 train, 4 at once
    assert sum(sizes[2] for sizes in seen) == len(rows[2]) == 44
    assert all(sizes[0] > 0 for sizes in seen)


@pytest.mark.parametrize(
    ("more", "names", "says"),
    [
        ((), ("first",), "Only one dataset"),
        ((), (), "Only one dataset"),
        (("--groups", "2,1"), NAMES, "decreases"),
        (("--groups", "1,4"), NAMES, "at most 3"),
        (("--groups", "1,1,2,2"), NAMES, "4 stages for 3 blocks"),
        (("--groups", "one"), NAMES, "not understood"),
        (("--budget", "0.01%"), NAMES, "admits no LoRA that datasets could share"),
    ],
)
def test_what_cannot_be_trained_together_is_refused_in_a_sentence(tables, more, names, says, capsys):
    assert main(words(tables, *more, names=names, out="never")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert says in error
    assert error.endswith(".")
    assert not (tables / "never").exists()


def test_datasets_of_different_tasks_are_refused(tables, capsys):
    given = words(tables, names=("first",), out="never")
    given.insert(2, str(tables / "rhymes.jsonl"))
    assert main(given) == 1
    assert "do not train together" in capsys.readouterr().err.splitlines()[-1]


def test_resuming_takes_no_other_plan(tables, capsys):
    assert main(["together", str(tables / "first.csv"), "--resume", "--out", str(tables / "together")]) == 1
    assert "goes on by its own plan" in capsys.readouterr().err
    assert main(["together", "--resume", "--out", str(tables / "nowhere")]) == 1
    assert "no joint plan" in capsys.readouterr().err
    assert main(["together", str(tables / "first.csv"), "--out", str(tables / "nowhere")]) == 1
    assert "--backbone is missing" in capsys.readouterr().err


def test_texts_are_written_together_too(tables):
    from tests.world import write_llama

    write_llama(tables / "llama")
    twin = (tables / "rhymes.jsonl").read_text().replace("the", "a")
    (tables / "twin.jsonl").write_text(twin)
    sources = [str(tables / "rhymes.jsonl"), str(tables / "twin.jsonl")]
    plan = plan_together(sources, str(tables / "llama"), "100%", recipe=Recipe(epochs=1, batch_size=8))
    assert plan.tree.similarity[0][1] > 0.05  # nearly the same task
    results = train_together(plan, tables / "texts")
    assert all(result.metric == "loss" and result.after < result.before for result in results)
