"""The card of an adapter: what it says is the run's, and nothing of a stranger's text becomes Markdown."""

import json
import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from taskit.backbone.sources import Backbone
from taskit.data.info import DataInfo
from taskit.planning.plan import MemoryEstimate, Plan, PlannedLocation, SkippedAdapter
from taskit.planning.recipe import Recipe
from taskit.sharing.publishing import UNPUBLISHED, publishable
from taskit.training.card import Licence, Publication, draw_plan, write_card
from taskit.training.results import Result
from taskit.transfer.similarity import TaskSimilarity
from taskit.zoo.adapter import CONFIG
from tests.hub.cards import card_errors

LABELS = ("birds", "<script>alert(1)</script>", "a\nb | c")
PLAN = Plan(
    method="taskit",
    seed=0,
    backbone=Backbone("lab/vit", "a" * 40),
    data=DataInfo(
        "/home/me/secret.csv", "f" * 64, "image", "image-classification", (("image", "image"),), LABELS, 80, 20
    ),
    budget_bytes=3 << 20,
    memory=MemoryEstimate(1, 2, 3, 4, 10, 5, 20),
    similarity_measure="delta",
    similarity=(
        TaskSimilarity("open](evil)", "bob/open", 0.5, True, "b" * 40),
        TaskSimilarity("hidden", "me/hidden", 0.4, True, "c" * 40),
        TaskSimilarity("unused", "bob/unused", -0.1, False, "d" * 40),
    ),
    skipped=(SkippedAdapter("me/broken", "It was learned on '/home/me/base'."),),
    locations=(
        PlannedLocation("layers.0.q", 0, "q", 1.0, 8, 100, {"near": 1.0}),
        PlannedLocation("layers.1.q", 1, "q", 0.5, 0, 0, {"near": 0.5}),
        PlannedLocation("layers.1.fc1", 1, "fc1", 0.2, 4, 50, {"near": 0.2}),
    ),
    objective=1.0,
    trainable_parameters=12,
    training=Recipe(),
)
RESULT = Result("accuracy", 0.512345, 0.823456, 10_000_000, 10_100_000, "cpu-storages", 1.0, 5, 12, 1)
PUBLICATION = Publication(
    "birds",
    "ann/birds",
    None,
    Licence("mit"),
    pinned={"bob/open": "b" * 40, "bob/unused": "d" * 40},
    picture="plan.png",
)


@pytest.fixture
def card(tmp_path):
    pattern = {"^layers\\.0\\.q": 8, "^layers\\.1\\.fc1": 4}
    (tmp_path / CONFIG).write_text(json.dumps({"task_type": None, "rank_pattern": pattern}))

    def write(plan=PLAN, publication=PUBLICATION):
        write_card(publishable(plan, publication), RESULT, tmp_path, publication)
        return ModelCard.load(tmp_path / "README.md")

    return write


def test_every_figure_is_the_runs_and_the_hub_accepts_it(card):
    made = card()
    assert card_errors(made.content) == []
    after, before = made.data.eval_results
    assert (after.metric_value, before.metric_value) == (RESULT.after, RESULT.before)
    for figure in ("0.5123", "0.8235", "9.54 MiB", "9.63 MiB", "3 MiB", "2 of 3", "80 rows", "20 held-out"):
        assert figure in made.text
    assert "license: mit" in made.content
    assert f'revision="{"a" * 40}"' in made.text
    assert "![" in made.text


def test_there_is_no_figure_but_the_runs(card):
    prose, ranks = card().text.split("```json")
    prose = re.sub(r"```python.*?```|\(https?://[^)]*\)", "", prose, flags=re.DOTALL)
    counts = {"2", "3", "80", "20", "8", "16"}  # inserted, candidates and MiB, rows, rank everywhere, rows of a step
    scores = {"0.5123", "0.8235", "0.500", "0.400"}
    sizes = {"9.54", "9.63", str(PLAN.memory.full_lora_bytes)}
    labels = {"0.", "1.", "2.", "1"}  # their numbers, and alert(1)
    assert set(re.findall(r"\d[\d.]*", prose)) == counts | scores | sizes | labels
    assert json.loads(ranks.split("```")[0]) == {"layers.0.q": 8, "layers.1.fc1": 4}


def test_what_is_not_public_is_not_named(card, tmp_path):
    made = card()
    for private in ("/home/me", "secret", "hidden", "me/broken"):
        assert private not in made.content
    assert "https://huggingface.co/bob/open" in made.text
    published = publishable(PLAN, PUBLICATION)
    assert published.data.source == UNPUBLISHED
    published.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == published
    assert published.similarity[1] == TaskSimilarity("", "", 0.4, True)
    assert published.skipped == ()


def test_a_public_dataset_is_named_and_linked(card):
    plan = replace(PLAN, data=replace(PLAN.data, source="hub:ylecun/mnist"))
    made = card(plan, replace(PUBLICATION, dataset="ylecun/mnist"))
    assert made.data.datasets == ["ylecun/mnist"]
    assert made.data.eval_results[0].dataset_type == "ylecun/mnist"
    assert "https://huggingface.co/datasets/ylecun/mnist" in made.text


def test_the_adapters_that_a_method_mixes_are_named_where_they_are_public():
    experts = [{"adapter": name, "revision": "r", "likeness": 0.5, "ranks": {}} for name in ("bob/open", "me/hidden")]
    plan = replace(PLAN, method="pi", method_options={"experts": experts, "zoo": "/home/me/zoo", "train": "all"})
    published = publishable(plan, PUBLICATION).method_options
    assert published == {"experts": [experts[0], {**experts[1], "adapter": "", "revision": ""}], "zoo": None,
                         "train": "all"}  # fmt: skip
    hub = replace(plan, method_options={**plan.method_options, "zoo": "hub:bob"})
    assert publishable(hub, PUBLICATION).method_options["zoo"] == "hub:bob"


def test_text_of_strangers_is_text(card):
    text = card().text
    assert "<script>" not in text
    assert "](evil)" not in text.replace("\\]", "")
    assert "a b \\| c" in text


def test_the_picture_has_a_cell_for_each_location(tmp_path):
    draw_plan(PLAN, tmp_path / "plan.png")
    image = Image.open(tmp_path / "plan.png")
    colours = {colour for _, colour in image.getcolors(100_000)}
    assert image.format == "PNG"
    assert {(0xFE, 0xE8, 0x38), (255, 255, 255)} <= colours
