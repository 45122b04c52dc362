"""A zoo is a folder; what cannot be used is skipped with its reason."""

import json

import pytest

from taskit.errors import ZooError
from taskit.zoo.zoo import LearnedTask, Zoo, open_zoo
from tests.conftest import BACKBONE, VIT


@pytest.fixture
def zoo(tiny_vit, make_adapter, tmp_path):
    for k, name in enumerate(("tiny/birds", "tiny/cars", "lone")):
        make_adapter(tiny_vit, tmp_path / name, {VIT[0]: k + 1}, seed=k)
    return tmp_path


def test_finds_adapters_one_and_two_levels_down(zoo):
    notes = {
        "name": "Birds",
        "labels": ["a", "b"],
        "metric": "accuracy",
        "value": 0.9,
        "head_alone": 1,
        "licence": "x",
    }
    (zoo / "tiny/birds/taskit.json").write_text(json.dumps(notes | {"source": "s", "more": []}))
    found = open_zoo(zoo, BACKBONE)
    assert found.skipped == ()
    assert [(t.task, t.adapter, t.ranks) for t in found.tasks] == [
        ("lone", "lone", ((VIT[0], 3),)),
        ("Birds", "tiny/birds", ((VIT[0], 1),)),
        ("cars", "tiny/cars", ((VIT[0], 2),)),
    ]
    folder, ranks, labels = str(zoo / "tiny/birds"), ((VIT[0], 1),), ("a", "b")
    assert found.tasks[1] == LearnedTask(
        "Birds", "tiny/birds", folder, BACKBONE, ranks, labels, "accuracy", 0.9, 1.0, "x", "s"
    )
    assert found.tasks[2].value is None
    (zoo / "tiny/birds/taskit.json").write_text(json.dumps(notes | {"gains": {"a": 1, "b": 0.0}}))
    assert open_zoo(zoo, BACKBONE).tasks[1].gains == (("a", 1.0), ("b", 0.0))


GAINS = ('{"gains": [1]}', '{"gains": {"a": "much"}}', '{"gains": {"a": -1}}', '{"gains": {"a": NaN}}')


@pytest.mark.parametrize("notes", ["[]", '{"value": "high"}', '{"labels": [1]}', '{"value": NaN}', "{", *GAINS])
def test_broken_notes_skip_their_adapter_only(zoo, notes):
    (zoo / "tiny/cars/taskit.json").write_text(notes)
    found = open_zoo(zoo, BACKBONE)
    assert [name for name, _ in found.skipped] == ["tiny/cars"]
    assert "taskit.json" in found.skipped[0][1]
    assert len(found.tasks) == 2


def test_skips_with_a_reason_and_never_crashes(zoo):
    (zoo / "lone/adapter_model.safetensors").rename(zoo / "lone/adapter_model.bin")
    (zoo / "tiny/cars/adapter_config.json").write_text("{")
    (zoo / "linked").symlink_to(zoo / "tiny/birds")
    (zoo / "empty").mkdir()
    (zoo / "odd/adapter_config.json").mkdir(parents=True)
    found = open_zoo(zoo, BACKBONE)
    assert [task.adapter for task in found.tasks] == ["tiny/birds"]
    reasons = dict(found.skipped)
    assert set(reasons) == {"linked", "lone", "odd", "tiny/cars"}
    assert "symbolic link" in reasons["linked"]
    assert "missing" in reasons["lone"]
    assert all(reason.endswith(".") for reason in reasons.values())


def test_an_adapter_for_another_backbone_is_skipped(zoo):
    found = open_zoo(zoo, "test/other")
    assert found.tasks == ()
    assert len(found.skipped) == 3
    assert "test/tiny" in found.skipped[0][1]


def test_an_empty_zoo_is_a_zoo_and_a_missing_one_is_not(tmp_path):
    assert open_zoo(tmp_path, BACKBONE) == Zoo((), ())
    with pytest.raises(ZooError, match="not a folder"):
        open_zoo(tmp_path / "none", BACKBONE)
