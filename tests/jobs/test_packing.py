"""The archive of a run: whole, and free of anything that only this machine knows."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from zipfile import ZipFile

import pytest

from taskit.backbone.sources import find_backbone, source_of
from taskit.data import load
from taskit.errors import PlanError
from taskit.jobs.packing import pack, pinned_requirements
from taskit.planning.plan import Plan
from taskit.zoo.zoo import BUNDLED


def test_the_archive_is_enough_where_nothing_else_is(plan, tmp_path):
    pack(plan, tmp_path / "pack.zip")
    with ZipFile(tmp_path / "pack.zip") as packed:
        packed.extractall(tmp_path / "there")
    there = Plan.load(tmp_path / "there" / "plan.json")
    assert (there.data.source, there.backbone.id) == ("data/topics.csv", "bert")
    assert str(tmp_path.parent) not in (tmp_path / "there" / "plan.json").read_text()
    assert replace(there, data=plan.data, backbone=plan.backbone) == plan
    assert load(tmp_path / "there" / there.data.source, seed=plan.seed).info.fingerprint == plan.data.fingerprint
    script = (
        "import taskit, taskit.jobs.worker; from taskit.planning.plan import Plan\n"
        "from taskit.backbone.sources import source_of\n"
        "print(taskit.__file__, source_of(Plan.load('plan.json').backbone))"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=tmp_path / "there", capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "there" / "taskit" / "__init__.py"), "bert"]
    assert not list((tmp_path / "there").rglob("ui"))


def test_a_folder_of_data_and_a_bundled_backbone_go_along(plan, tmp_path):
    (tmp_path / "splits").mkdir()
    for split in ("train", "test"):
        (tmp_path / "splits" / f"{split}.csv").write_text("text,label\n")
    other = replace(
        plan,
        data=replace(plan.data, source=str(tmp_path / "splits")),
        backbone=find_backbone("vit-mini-tiny32"),
    )
    pack(other, tmp_path / "pack.zip")
    with ZipFile(tmp_path / "pack.zip") as packed:
        names = set(packed.namelist())
        assert json.loads(packed.read("plan.json"))["backbone"]["id"] == "vit-mini-tiny32"
    assert {"data/splits/train.csv", "data/splits/test.csv"} <= names
    assert {f"vit-mini-tiny32/{path.name}" for path in source_of(other.backbone).iterdir()} <= names


def test_adapters_that_a_method_mixes_go_along(plan, tmp_path):
    options = {"experts": [{"adapter": "rings", "revision": "", "ranks": {}}], "zoo": None}
    learned = sorted(BUNDLED.glob("vit-mini-tiny32/*"))[0]
    options["experts"][0]["adapter"] = learned.name
    mixed = replace(plan, method="pi", method_options=options, backbone=find_backbone("vit-mini-tiny32"))
    pack(mixed, tmp_path / "pack.zip")
    with ZipFile(tmp_path / "pack.zip") as packed:
        assert json.loads(packed.read("plan.json"))["method_options"] == {**options, "zoo": "zoo"}
        assert f"zoo/{learned.name}/adapter_model.safetensors" in packed.namelist()
    with pytest.raises(PlanError, match="train it here"):
        pack(replace(plan, method="pi", method_options=options), tmp_path / "pack.zip")


def test_data_on_the_hub_stays_there(plan, tmp_path):
    pack(replace(plan, data=replace(plan.data, source="hub:ann/topics")), tmp_path / "pack.zip")
    with ZipFile(tmp_path / "pack.zip") as packed:
        assert not [name for name in packed.namelist() if name.startswith("data/")]
        assert json.loads(packed.read("plan.json"))["data"]["source"] == "hub:ann/topics"


def test_packages_are_those_of_this_machine():
    pins = dict(line.split("==") for line in pinned_requirements())
    assert pins["transformers"] == version("transformers")
    assert pins["torch"] == version("torch").split("+")[0]
    assert not {"gradio", "pytest", "ruff"} & set(pins)


def test_where_taskit_is_not_installed_its_own_list_is_read(monkeypatch):
    def requires(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("taskit.jobs.packing.requires", requires)
    pins = dict(line.split("==") for line in pinned_requirements())
    assert pins["transformers"] == version("transformers")
    assert "gradio" not in pins
