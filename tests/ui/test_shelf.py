"""Runs on the disk: the line, whose turn it is, and whose run is whose."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from taskit.errors import RunError
from taskit.together.plan import JointPlan
from taskit.together.task_tree import TaskTree
from taskit.training.run_folder import RunFolder
from taskit.ui import shelf as room
from taskit.ui.shelf import Shelf, Ticket, describe
from taskit.ui.sketch import at_percent, sketch
from tests.ui.world import make_outlook


@pytest.fixture
def plan(tmp_path):
    source = tmp_path / "upload" / "my photos!.zip"
    source.parent.mkdir()
    source.write_bytes(b"photos")
    return sketch(make_outlook(source=str(source))).draft(at_percent(60))


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A shelf whose runs are made, but never trained."""

    def start(plan, folder):
        made = RunFolder(folder)
        made.reserve()
        made.write_json("plan.json", plan.to_dict())
        made.set_state("running")

    def start_together(plan, folder):
        start(plan.plans[0], folder)
        (folder / "together.json").write_text("{}")

    monkeypatch.setattr(room, "start", start)
    monkeypatch.setattr(room, "start_together", start_together)
    return Shelf(tmp_path / "runs")


def test_the_first_starts_at_once_and_the_others_wait_in_order(shelf, plan):
    names = [shelf.add(visitor, plan) for visitor in ("ann", "bob", "ann")]
    assert shelf.find("ann", names[0]).state.name == "running"
    waiting = [shelf.find(None, name) for name in names[1:]]
    assert [shelf.place(one) for one in waiting] == [1, 2]
    assert [describe(one, shelf)["state"] for one in waiting] == ["queued", "queued"]


def test_a_free_slot_goes_to_the_next(shelf, plan):
    first, second = shelf.add("ann", plan), shelf.add("bob", plan)
    RunFolder(shelf.root / "ann" / first).set_state("stopped")
    Shelf(shelf.root).advance()  # another app on the same folder, as after a restart
    assert shelf.find("bob", second).state.name == "running"
    assert shelf.tickets() == []


def test_nobody_finds_a_run_of_somebody_else(shelf, plan):
    mine, waiting = shelf.add("ann", plan), shelf.add("ann", plan)
    for name in (mine, waiting, "../ann", "", "*"):
        with pytest.raises(RunError, match="no run called"):
            shelf.find("bob", name)
    assert shelf.runs("bob") == []
    assert [run.path.name for run in shelf.runs("ann")] == [mine]


def test_datasets_trained_together_are_one_run_until_each_has_its_own(shelf, plan):
    joint = JointPlan(TaskTree(("cats", "dogs"), ((1.0, 0.5), (0.5, 1.0)), (((0, 1),),)), (plan, plan))
    first, second = shelf.add_together("ann", joint), shelf.add_together("ann", joint)
    assert first.startswith("together-")
    assert isinstance(shelf.find("ann", second), Ticket)
    run = shelf.find("ann", first)
    assert shelf.root in Path(run.plan.data.source).parents  # the uploads are kept
    for name in ("cats", "dogs"):
        part = RunFolder(run.path / name)
        part.reserve()
        part.write_json("plan.json", plan.to_dict())
        part.set_state("done")
    names = [f"{first}/cats", f"{first}/dogs"]
    assert [shelf.name_of(one) for one in shelf.runs("ann")] == [first, *names]
    assert shelf.find("ann", names[1]).path == run.path / "dogs"
    for stranger in (f"{first}/birds", f"{first}/../{first}", f"{first}/", f"x/{first}"):
        with pytest.raises(RunError, match="no run called"):
            shelf.find("ann", stranger)
    RunFolder(run.path).set_state("stopped")
    shelf.advance()
    assert shelf.find("ann", second).state.name == "running"


def test_names_cannot_be_guessed_and_say_what_they_are(shelf, plan):
    names = {shelf.add("ann", plan) for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("my-photos-") for name in names)


def test_an_upload_is_kept_once_beside_the_runs(shelf, plan, tmp_path):
    names = [shelf.add("ann", plan), shelf.add("ann", plan)]
    (tmp_path / "upload" / "my photos!.zip").unlink()
    kept = shelf.find("ann", names[0]).plan.data.source
    assert Path(kept).read_bytes() == b"photos"
    assert len(list(shelf.root.glob("ann/data/*/*"))) == 1
    stored = json.loads(shelf.find("ann", names[1]).path.read_text())
    assert stored["plan"]["data"]["source"] == kept


def test_data_of_the_hub_is_left_where_it_is(shelf, plan):
    from_hub = replace(plan, data=replace(plan.data, source="hub:ann/photos"))
    assert shelf.find("ann", shelf.add("ann", from_hub)).plan.data.source == "hub:ann/photos"


def test_who_leaves_the_line_is_gone(shelf, plan):
    shelf.add("ann", plan)
    second = shelf.add("bob", plan)
    shelf.remove(shelf.find("bob", second))
    with pytest.raises(RunError):
        shelf.find("bob", second)


def test_a_run_that_cannot_start_says_why_and_lets_the_next_one_pass(shelf, plan, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "start", refuse)
    name = shelf.add("ann", plan)
    found = shelf.find("ann", name)
    assert isinstance(found, Ticket)
    assert "No space left" in found.error
    assert describe(found, shelf)["state"] == "failed"
