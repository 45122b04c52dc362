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


def test_a_plan_is_read_whole_and_written_as_it_was(tmp_path):
    plan = Plan.load(EARLIER / "plan.json")
    assert [place.rank for place in plan.locations] == [32, 32, 32, 32, 32, 16]
    plan.save(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_bytes() == (EARLIER / "plan.json").read_bytes()


def test_a_finished_run_is_listed_with_its_result_and_events(tmp_path):
    shutil.copytree(EARLIER, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert [one.path for one in list_runs(tmp_path)] == [run.path]
    assert run.state.name == "done"
    assert run.plan == Plan.load(EARLIER / "plan.json")
    written = json.loads((EARLIER / "result.json").read_text())
    assert as_json(asdict(run.result)) == written
    assert [event.kind for event in run.events()] == ["note", "note", "step", "step", "done"]
    assert (run.progress.step, run.progress.steps) == (2, 355)
