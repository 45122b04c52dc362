"""Files of an earlier version are still read: the demo's run folder of 2026-11, its plan cut to six locations."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from taskit.planning.plan import Plan
from taskit.training.runs import Run, list_runs

EARLIER = Path(__file__).with_name("earlier")


def as_json(value):
    return json.loads(json.dumps(value))


def test_a_plan_is_read_whole(tmp_path):
    """What has been added since stands at what the plan was trained with: the whole batch at once, its own loss."""
    plan = Plan.load(EARLIER / "plan.json")
    assert [place.rank for place in plan.locations] == [32, 32, 32, 32, 32, 16]
    plan.save(tmp_path / "plan.json")
    before, after = (json.loads((folder / "plan.json").read_text()) for folder in (EARLIER, tmp_path))
    assert (before.pop("schema"), after.pop("schema")) == (1, 2)
    assert (after.pop("training_rows"), after.pop("longest"), after.pop("savings")) == (None, "", [])
    training = before.pop("training")
    added = {"micro_batch": training["batch_size"], "recomputed_blocks": None, "loss_chunk": None}
    assert after.pop("training") == training | added | {"rate_follows_ranks": False}
    assert after == before


def test_rows_by_micro_batch_become_rows_of_a_step():
    values = json.loads((EARLIER / "plan.json").read_text())
    values["training"] |= {"batch_size": 8, "gradient_accumulation": 3}
    recipe = Plan.from_dict(values).training
    assert (recipe.batch_size, recipe.micro_batch, recipe.gradient_accumulation) == (24, 8, 3)


def test_a_finished_run_is_listed_with_its_result_and_events(tmp_path):
    shutil.copytree(EARLIER, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert [one.path for one in list_runs(tmp_path)] == [run.path]
    assert run.state.name == "done"
    assert run.plan == Plan.load(EARLIER / "plan.json")
    written = json.loads((EARLIER / "result.json").read_text())
    found = as_json(asdict(run.result))
    assert {name: found[name] for name in written} == written
    assert [event.kind for event in run.events()] == ["note", "note", "step", "step", "done"]
    assert (run.progress.step, run.progress.steps) == (2, 355)
