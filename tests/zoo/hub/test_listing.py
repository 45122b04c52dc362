"""Which adapters of the Hub make a zoo, how they are asked for, and which are left out."""

import json
from pathlib import Path
from threading import Barrier

import pytest
from safetensors.torch import load, save

from taskit.backbone.sources import find_backbone
from taskit.errors import BackboneError, HubError, ZooError
from taskit.zoo.adapter import CONFIG, MAX_WEIGHT_BYTES, NOTES, WEIGHTS
from taskit.zoo.hub import listing
from taskit.zoo.hub.listing import WORKERS
from taskit.zoo.hub.pulling import pull
from taskit.zoo.hub.source import HubSource, parse_source
from taskit.zoo.zoo import open_zoo
from tests.conftest import VIT
from tests.hub.faults import Fault

BASE = "lab/vit"
CARD = "---\nlibrary_name: peft\nbase_model: {base}\ntags: [taskit]\n---\n"


@pytest.fixture
def adapter(tiny_vit, make_adapter, tmp_path):
    """The files of an adapter on lab/vit, as changed by keywords of its configuration."""
    make_adapter(tiny_vit, tmp_path / "made", {VIT[0]: 2})

    def files(base=BASE, tagged=True, **changes):
        config = json.loads((tmp_path / "made" / CONFIG).read_text()) | {"base_model_name_or_path": base} | changes
        card = CARD.format(base=base)
        card = card if tagged else card.replace("tags: [taskit]\n", "")
        weights = (tmp_path / "made" / WEIGHTS).read_bytes()
        return {CONFIG: json.dumps(config).encode(), WEIGHTS: weights, "README.md": card.encode()}

    return files


def names(zoo):
    return [task.adapter for task in zoo.tasks]


def test_two_hundred_adapters_take_two_pages_and_a_second_look_takes_no_request(hub, adapter):
    for n in range(200):
        hub.state.add_repo(f"ann/m{n:03}", adapter())
    zoo = open_zoo("hub", BASE)
    assert len(zoo.tasks) == 200
    assert hub.requests.count("GET /api/models") == 2 + 1  # two pages, and the quantised copies of the backbone
    hub.requests.clear()
    assert open_zoo("hub", BASE) == zoo
    assert hub.requests == []


def test_adapters_are_pulled_in_parallel(hub, adapter, monkeypatch):
    meeting = Barrier(WORKERS, timeout=120)

    def pull_together(*given):
        meeting.wait()  # until all others have begun too
        return pull(*given)

    monkeypatch.setattr(listing, "pull", pull_together)
    for n in range(WORKERS):
        hub.state.add_repo(f"ann/m{n}", adapter())
    assert len(open_zoo("hub", BASE).tasks) == WORKERS


def test_sources(hub, adapter):
    hub.state.add_repo("ann/shared", adapter())
    hub.state.add_repo("ann/plain", adapter(tagged=False))
    hub.state.add_repo("bob/shared", adapter())
    hub.state.add_repo("bob/other", adapter(base="lab/other"))
    hub.state.collections["lab/best-0123"] = ["bob/shared", "bob/other"]
    assert names(open_zoo("hub", BASE)) == ["ann/shared", "bob/shared"]
    assert names(open_zoo("hub:ann", BASE)) == ["ann/plain", "ann/shared"]
    listed = open_zoo("hub:bob/shared,ann/plain,ann/none", BASE)
    assert names(listed) == ["bob/shared", "ann/plain"]
    assert [name for name, _ in listed.skipped] == ["ann/none"]
    collected = open_zoo("hub:collections/lab/best-0123", BASE)
    assert names(collected) == ["bob/shared"]
    assert "learned on 'lab/other'" in dict(collected.skipped)["bob/other"]


def test_what_is_written_after_zoo():
    assert parse_source("hub") == HubSource()
    assert parse_source("hub:ann") == HubSource(author="ann")
    assert parse_source("hub:a/b,c/d@v1") == HubSource(ids=("a/b", "c/d@v1"))
    for wrong in ("hub:", "hub:a/b,", "hub:../x", "hub:a/b/c", "hub:a b", "hub:collections/x"):
        with pytest.raises(ZooError, match="is not understood"):
            parse_source(wrong)


def test_a_revision_stays_what_it_was(hub, adapter):
    repo = hub.state.add_repo("ann/x", adapter())
    old = repo.head
    hub.state.change(repo, {CONFIG: b"{}"})
    (task,) = open_zoo(f"hub:ann/x@{old}", BASE).tasks
    assert task.revision == old
    assert open_zoo("hub:ann/x", BASE).tasks == ()
    assert "no such revision" in open_zoo("hub:ann/x@v9", BASE).skipped[0][1]


def test_adapters_of_quantised_copies_are_used_too(hub, adapter):
    copy = CARD.format(base=BASE).replace("peft", "transformers").replace("taskit", "safetensors")
    hub.state.add_repo(
        "bob/vit-4bit", {"README.md": copy.replace("tags", "base_model_relation: quantized\ntags").encode()}
    )
    hub.state.add_repo("ann/x", adapter(base="bob/vit-4bit"))
    assert names(open_zoo("hub", BASE)) == ["ann/x"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "has no adapter_config.json"),
        ({CONFIG: b"{}", "adapter_model.bin": b"cos\nsystem\n"}, "never opened"),
        ({CONFIG: b"x" * (2 << 20), WEIGHTS: b""}, "2097152 bytes"),
        ({CONFIG: b"[]", WEIGHTS: b"never downloaded"}, "no JSON object"),
    ],
)
def test_a_repository_that_is_no_adapter_is_skipped_before_its_weights(files, says, hub):
    hub.state.add_repo("ann/x", {"README.md": CARD.format(base=BASE).encode(), **files})
    assert says in open_zoo("hub:ann/x", BASE).skipped[0][1]
    assert not [line for line in hub.requests if "safetensors" in line or "blob" in line or ".bin" in line]


def test_weights_that_are_too_large_are_not_downloaded(hub, adapter):
    repo = hub.state.add_repo("ann/x", adapter())
    repo.tree("main")[WEIGHTS].size = MAX_WEIGHT_BYTES + 1
    assert str(MAX_WEIGHT_BYTES) in open_zoo("hub", BASE).skipped[0][1]
    assert not [line for line in hub.requests if "resolve" in line]


def test_other_bytes_than_listed_are_thrown_away(hub, adapter, tmp_path):
    repo = hub.state.add_repo("ann/x", adapter())
    stored = repo.tree("main")[WEIGHTS]
    good = hub.state.blobs[stored.sha256]
    hub.state.blobs[stored.sha256] = bytes(len(good))
    assert "another content" in open_zoo("hub", BASE).skipped[0][1]
    assert not list(tmp_path.rglob(WEIGHTS))[1:]  # only the one that the fixture made
    hub.state.blobs[stored.sha256] = good
    assert names(open_zoo("hub", BASE, ask=True)) == ["ann/x"]


@pytest.mark.parametrize("revision", ["a" * 40, "sha256:" + "b" * 64])
def test_an_adapter_for_another_revision_of_the_base(revision, hub, adapter):
    notes = json.dumps({"backbone": {"id": BASE, "revision": revision}}).encode()
    hub.state.add_repo("ann/x", adapter() | {NOTES: notes})
    other = revision[:-1] + "c"
    assert names(open_zoo("hub", BASE, revision=revision)) == ["ann/x"]
    assert names(open_zoo("hub", BASE, revision="main")) == ["ann/x"]
    (skipped,) = open_zoo("hub", BASE, revision=other).skipped
    assert "another revision of the backbone" in skipped[1]


def test_a_listing_that_broke_is_not_kept(hub, adapter, waits):  # noqa: ARG001
    hub.state.add_repo("ann/x", adapter())
    hub.state.add_repo("ann/y", adapter())
    hub.faults[:] = [Fault(503, "/api/models/ann/x", times=50)]
    assert names(open_zoo("hub", BASE)) == ["ann/y"]
    hub.faults.clear()
    assert names(open_zoo("hub", BASE)) == ["ann/x", "ann/y"]


@pytest.mark.usefixtures("hub")
def test_without_a_network_and_without_a_cache_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        open_zoo("hub", BASE)


def test_named_adapters_are_there_without_a_network_too(hub, adapter, monkeypatch):
    hub.state.add_repo("ann/x", adapter(base="vit"))
    zoo = open_zoo("hub:ann/x", "vit")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    later = open_zoo("hub:ann/x", "vit", ask=True)
    assert later.tasks == zoo.tasks
    assert "listing of" in later.note


def test_a_private_adapter_lies_in_no_shared_place(hub, adapter):
    token = hub.add_account("ann")
    hub.state.add_repo("ann/mine", adapter(), private=True)
    hub.state.add_repo("ann/ours", adapter())
    folders = {task.adapter: Path(task.folder) for task in open_zoo("hub", BASE, token=token).tasks}
    assert "public" in folders["ann/ours"].parts
    assert "public" not in folders["ann/mine"].parts
    assert token not in str(folders["ann/mine"])
    assert names(open_zoo("hub", BASE)) == ["ann/ours"]


def test_a_base_that_is_gated_or_gone(hub):
    files = {"config.json": b"{}", "model.safetensors": save(load(save({})))}
    hub.state.add_repo("lab/gated", files, gated=True)
    with pytest.raises(BackboneError, match="is gated"):
        find_backbone("lab/gated")
    with pytest.raises(BackboneError, match="There is no backbone"):
        find_backbone("lab/gone")
