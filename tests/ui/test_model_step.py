"""Models and learned tasks as the first step lists them, from the disk and from a local hub."""

from types import SimpleNamespace

import pytest

from taskit.ui.model_step import BUNDLED, HUB, choose, search
from tests.hub.world import BASE, backbone
from tests.ui.test_wrong_order import sentence_of
from tests.world import write_bert

GUEST = SimpleNamespace(request=SimpleNamespace(scope={"visitor": "guest"}))


@pytest.fixture
def shared(hub, tmp_path):
    """The local hub with one backbone, of which there is no adapter."""
    repo = backbone(BASE, write_bert(tmp_path / "bert"))
    hub.state.repos["model", BASE] = repo
    hub.state.blobs.update({file.sha256: file.data for file in repo.tree("main").values()})
    return hub


def test_the_bundled_model_comes_with_its_learned_tasks():
    said, view, backbone, zoo, tab = choose("vit-mini-tiny32", BUNDLED, GUEST)
    assert said == ""
    assert (backbone, zoo) == ("vit-mini-tiny32", None)
    for words in ("mnist", "linear head only", "Apache-2.0", "KiB"):
        assert words in view
    assert "7 tasks" in tab["label"]


def test_a_model_nobody_has_shared_an_adapter_of(shared):
    _, view, backbone, zoo, _ = choose(BASE, HUB, GUEST)
    assert "Nobody has shared an adapter" in view
    assert (backbone, zoo) == (BASE, "hub")
    assert any(line == "GET /api/models" for line in shared.requests), "asked anew"


def test_a_model_that_is_not_there():
    assert "nowhere" in sentence_of(choose("nobody/nowhere", BUNDLED, GUEST))
    assert sentence_of(choose("", BUNDLED, GUEST))


@pytest.mark.usefixtures("shared")
def test_a_search_lists_what_the_hub_finds():
    _, models = search("tiny")
    assert models.choices == [(BASE, BASE)]
    assert "try other words" in sentence_of(search("elephants"))


def test_a_search_without_a_network():
    assert "HF_HUB_OFFLINE" in sentence_of(search("tiny"))
