"""What one user pushes is in the next listing of another, who plans with it; all through the unmodified client."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants, snapshot_download
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from taskit.errors import HubError
from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.sharing.pushing import push
from taskit.training.inference import load_run
from taskit.zoo.adapter import WEIGHTS
from taskit.zoo.zoo import open_zoo
from tests.hub.world import BASE, WRITER
from tests.world import write_rhymes

WORDS = ["a cat and a dog", "very red and blue"]


def logits(model, tokenizer):
    with torch.no_grad():
        return model(**tokenizer(WORDS, padding=True, return_tensors="pt")).logits


def test_pushed_by_one_and_planned_with_by_another(either_hub, lab, tmp_path, monkeypatch):
    ann, bob = either_hub.add_account("ann"), either_hub.add_account("bob")
    assert open_zoo("hub", WRITER, token=bob).tasks == ()
    pushed = push(lab.rhymes, "ann/rhymes", private=False, token=ann)

    zoo = open_zoo("hub", WRITER, token=bob, ask=True)
    assert [(t.adapter, t.revision, t.task) for t in zoo.tasks] == [("ann/rhymes", pushed.revision, "rhymes")]
    assert zoo.skipped == ()

    other, recipe = write_rhymes(tmp_path / "mine.jsonl", rows=40), Recipe(epochs=1, batch_size=16)
    plan = make_plan(other, WRITER, "100%", zoo="hub", token=bob, recipe=recipe)
    assert [(s.adapter, s.revision, s.used) for s in plan.similarity] == [("ann/rhymes", pushed.revision, True)]

    either_hub.requests.clear()
    assert make_plan(other, WRITER, "100%", zoo="hub", token=bob, recipe=recipe) == plan
    assert either_hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = open_zoo("hub", WRITER, token=bob, ask=True)
    assert offline.tasks == zoo.tasks
    assert "HF_HUB_OFFLINE" in offline.note


def test_plain_peft_gives_the_same_logits(either_hub, lab, tmp_path):
    ann = either_hub.add_account("ann")
    push(lab.topics, "ann/topics", token=ann)
    _, ours = load_run(lab.topics)
    folder = snapshot_download("ann/topics", token=ann, local_dir=tmp_path / "theirs")
    base_folder = snapshot_download(BASE)
    base = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=2)
    theirs = PeftModel.from_pretrained(base, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    torch.testing.assert_close(logits(theirs, tokenizer), logits(ours, tokenizer), rtol=0, atol=0)


def test_the_card_is_valid_and_says_what_the_run_gave(either_hub, lab):
    ann = either_hub.add_account("ann")
    push(lab.topics, "ann/topics", token=ann)
    card = ModelCard.load("ann/topics", token=ann)
    card.validate()
    result = json.loads((lab.topics / "result.json").read_text())
    after, before = card.data.eval_results
    assert (after.metric_value, before.metric_value) == (result["after"], result["before"])
    assert card.data.license == "apache-2.0"
    assert {"taskit", f"base_model:adapter:{BASE}"} <= set(card.data.tags)
    assert f"{result['after']:.4f}" in card.text
    files = either_hub.state.repos["model", "ann/topics"].commits[-1][1]
    assert {"plan.json", "plan.png", "taskit.json", "README.md"} < set(files)
    assert len(either_hub.state.repos["model", "ann/topics"].commits) == 2
    published = b"".join(file.data or b"" for file in files.values())
    for private in (b"acme", b"secret", str(lab.topics).encode(), ann.encode()):
        assert private not in published


def test_a_private_zoo_is_only_its_owners(either_hub, lab):
    ann, bob = either_hub.add_account("ann"), either_hub.add_account("bob")
    pushed = push(lab.topics, "ann/topics", token=ann)
    assert pushed.private
    assert [task.adapter for task in open_zoo("hub:ann", BASE, token=ann, ask=True).tasks] == ["ann/topics"]
    for token in (bob, None):
        assert open_zoo("hub:ann", BASE, token=token).tasks == ()
        zoo = open_zoo("hub:ann/topics", BASE, token=token)
        assert zoo.tasks == ()
        assert "that you may see" in zoo.skipped[0][1]


def test_the_same_push_again_changes_nothing(either_hub, lab):
    ann = either_hub.add_account("ann")
    first = push(lab.topics, "ann/topics", token=ann)
    assert push(lab.topics, "ann/topics", token=ann) == first
    with pytest.raises(HubError, match="exists and is private"):
        push(lab.topics, "ann/topics", private=False, token=ann)
    assert len(either_hub.state.repos["model", "ann/topics"].commits) == 2


def test_another_run_is_the_next_version_and_another_backbone_is_refused(hub, lab, tmp_path):
    ann = hub.add_account("ann")
    first = push(lab.topics, "ann/topics", token=ann)
    retrained = shutil.copytree(lab.topics, tmp_path / "retrained")
    weights = retrained / "adapter" / WEIGHTS
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    second = push(retrained, "ann/topics", token=ann)
    repo = hub.state.repos["model", "ann/topics"]
    assert [sha for sha, _ in repo.commits[1:]] == [first.revision, second.revision]
    pinned = open_zoo(f"hub:ann/topics@{first.revision}", BASE, token=ann).tasks[0]
    assert Path(pinned.folder, WEIGHTS).read_bytes() == (lab.topics / "adapter" / WEIGHTS).read_bytes()
    with pytest.raises(HubError, match="another backbone"):
        push(lab.rhymes, "ann/topics", token=ann)
    assert repo.head == second.revision
