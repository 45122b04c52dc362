"""Runs on the disk: the queue, which run is next, and whose run is whose."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from taskit.errors import RunError
from taskit.together.plan import JointPlan
from taskit.together.task_tree import TaskTree
from taskit.training.run_folder import RunFolder
from taskit.ui import run_store as module
from taskit.ui.frontier_view import at_percent, frontier_view
from taskit.ui.run_store import RunStore, Ticket, describe
from tests.ui.world import make_context


@pytest.fixture
def plan(tmp_path):
    source = tmp_path / "upload" / "my photos!.zip"
    source.parent.mkdir()
    source.write_bytes(b"photos")
    return frontier_view(make_context(source=str(source))).draft(at_percent(60))


@pytest.fixture
def run_store(tmp_path, monkeypatch):
    """A run store whose runs are made, but never trained."""

    def start(plan, folder):
        made = RunFolder(folder)
        made.reserve()
        made.write_json("plan.json", plan.to_dict())
        made.set_state("running")

    def start_together(plan, folder):
        start(plan.plans[0], folder)
        (folder / "together.json").write_text("{}")

    monkeypatch.setattr(module, "start", start)
    monkeypatch.setattr(module, "start_together", start_together)
    return RunStore(tmp_path / "runs")


def test_the_first_starts_at_once_and_the_others_wait_in_order(run_store, plan):
    names = [run_store.add(visitor, plan) for visitor in ("ann", "bob", "ann")]
    assert run_store.find("ann", names[0]).state.name == "running"
    waiting = [run_store.find(None, name) for name in names[1:]]
    assert [run_store.runs_ahead(one) for one in waiting] == [1, 2]
    assert [describe(one, run_store)["state"] for one in waiting] == ["queued", "queued"]


def test_a_free_slot_goes_to_the_next(run_store, plan):
    first, second = run_store.add("ann", plan), run_store.add("bob", plan)
    RunFolder(run_store.root / "ann" / first).set_state("stopped")
    RunStore(run_store.root).advance()  # another app on the same folder, as after a restart
    assert run_store.find("bob", second).state.name == "running"
    assert run_store.tickets() == []


def test_nobody_finds_a_run_of_somebody_else(run_store, plan):
    mine, waiting = run_store.add("ann", plan), run_store.add("ann", plan)
    for name in (mine, waiting, "../ann", "", "*"):
        with pytest.raises(RunError, match="no run called"):
            run_store.find("bob", name)
    assert run_store.runs("bob") == []
    assert [run.path.name for run in run_store.runs("ann")] == [mine]


def test_datasets_trained_together_are_one_run_until_each_has_its_own(run_store, plan):
    joint = JointPlan(TaskTree(("cats", "dogs"), ((1.0, 0.5), (0.5, 1.0)), (((0, 1),),)), (plan, plan))
    first, second = run_store.add_together("ann", joint), run_store.add_together("ann", joint)
    assert first.startswith("together-")
    assert isinstance(run_store.find("ann", second), Ticket)
    run = run_store.find("ann", first)
    assert run_store.root in Path(run.plan.data.source).parents  # the uploads are kept
    for name in ("cats", "dogs"):
        part = RunFolder(run.path / name)
        part.reserve()
        part.write_json("plan.json", plan.to_dict())
        part.set_state("done")
    names = [f"{first}/cats", f"{first}/dogs"]
    assert [run_store.name_of(one) for one in run_store.runs("ann")] == [first, *names]
    assert run_store.find("ann", names[1]).path == run.path / "dogs"
    for stranger in (f"{first}/birds", f"{first}/../{first}", f"{first}/", f"x/{first}"):
        with pytest.raises(RunError, match="no run called"):
            run_store.find("ann", stranger)
    RunFolder(run.path).set_state("stopped")
    run_store.advance()
    assert run_store.find("ann", second).state.name == "running"


def test_names_cannot_be_guessed_and_say_what_they_are(run_store, plan):
    names = {run_store.add("ann", plan) for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("my-photos-") for name in names)


def test_an_upload_is_kept_once_beside_the_runs(run_store, plan, tmp_path):
    names = [run_store.add("ann", plan), run_store.add("ann", plan)]
    (tmp_path / "upload" / "my photos!.zip").unlink()
    kept = run_store.find("ann", names[0]).plan.data.source
    assert Path(kept).read_bytes() == b"photos"
    assert len(list(run_store.root.glob("ann/data/*/*"))) == 1
    stored = json.loads(run_store.find("ann", names[1]).path.read_text())
    assert stored["plan"]["data"]["source"] == kept


def test_data_of_the_hub_is_left_where_it_is(run_store, plan):
    from_hub = replace(plan, data=replace(plan.data, source="hub:ann/photos"))
    assert run_store.find("ann", run_store.add("ann", from_hub)).plan.data.source == "hub:ann/photos"


def test_who_leaves_the_line_is_gone(run_store, plan):
    run_store.add("ann", plan)
    second = run_store.add("bob", plan)
    run_store.remove(run_store.find("bob", second))
    with pytest.raises(RunError):
        run_store.find("bob", second)


def test_a_run_that_cannot_start_says_why_and_lets_the_next_one_pass(run_store, plan, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "start", refuse)
    name = run_store.add("ann", plan)
    found = run_store.find("ann", name)
    assert isinstance(found, Ticket)
    assert "No space left" in found.error
    assert describe(found, run_store)["state"] == "failed"
