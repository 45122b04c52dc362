"""Runs seen from outside: launched, stopped, resumed, deleted, and owners that died."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest

from taskit.cli.main import main
from taskit.errors import RunError
from taskit.training.ownership import Owner, locked, write_owner
from taskit.training.run_folder import Event, RunFolder
from taskit.training.runs import Run, list_runs, start

DEAD = Owner(pid=2**22 + 1, started=1.0)  # above the largest process id of Linux


def made(path, state="running", owner=None):
    """A run folder as a trainer would leave it."""
    folder = RunFolder(path)
    folder.reserve()
    folder.set_state(state)
    if owner:
        write_owner(path, owner)
    return Run(path)


def alive():
    return Owner.of(psutil.Process().pid)


def wait_for(run, *states, seconds=240):
    until = time.monotonic() + seconds
    while run.state.name not in states:
        assert time.monotonic() < until, (run.state, run.folder.log.read_text())
        time.sleep(0.1)


def test_a_launched_run_stops_resumes_and_ends(plan, tmp_path):
    run = start(replace(plan, training=replace(plan.training, epochs=12)), tmp_path / "run")
    assert run.state.name == "queued"
    while not any(event.kind == "step" for event in run.events()):
        assert run.state.name in ("queued", "running"), run.folder.log.read_text()
        time.sleep(0.02)
    with pytest.raises(RunError, match="in use"):
        run.delete()
    run.stop()
    wait_for(run, "stopped")
    stopped_at = run.progress.step
    assert 1 <= stopped_at < run.progress.steps == 12 * 11
    run.resume()
    with pytest.raises(RunError, match=r"queued|in use|running"):
        run.resume()
    wait_for(run, "done", "failed")
    assert run.state.name == "done", run.folder.log.read_text()
    assert run.progress.step == run.result.steps == 12 * 11
    assert run.progress.metric is not None
    assert "Traceback" not in run.folder.log.read_text()
    with pytest.raises(RunError, match="finished"):
        run.resume()
    run.delete()
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_begin_says_why(plan, tmp_path):
    lost = replace(plan, data=replace(plan.data, source=str(tmp_path / "lost.csv")))
    run = start(lost, tmp_path / "run")
    wait_for(run, "failed")
    assert "lost.csv" in run.state.message
    assert run.state.message.endswith(".")
    assert run.result is None


@pytest.mark.parametrize("state", ["queued", "running", "stopping"])
def test_a_dead_owner_is_visible(state, tmp_path):
    run = made(tmp_path / "run", state, DEAD)
    assert run.state.name == "failed"
    assert str(DEAD.pid) in run.state.message
    assert "resume" in run.state.message


def test_a_reused_process_id_is_no_owner(tmp_path):
    run = made(tmp_path / "run", owner=replace(alive(), started=alive().started - 60))
    assert run.state.name == "failed"


@pytest.mark.parametrize("state", ["stopped", "failed", "done"])
def test_what_has_ended_stays_as_it_ended(state, tmp_path):
    run = made(tmp_path / "run", state, DEAD)
    assert run.state.name == state
    with pytest.raises(RunError, match=state):
        run.stop()


def test_a_stop_is_seen_at_once_and_a_killed_queued_run_counts_as_stopped(tmp_path):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    run = made(tmp_path / "run", "queued", Owner.of(sleeper.pid))
    assert run.state.name == "queued"
    (tmp_path / "run" / "stop").touch()
    assert run.state.name == "stopping"
    run.stop()
    sleeper.wait(10)
    assert run.state.name == "stopped"
    write_owner(run.path, alive())
    assert run.state.name == "queued", "a new owner was not asked to stop"


def test_two_writers_are_impossible(tmp_path):
    run = made(tmp_path / "run", "stopped", DEAD)
    script = (
        "import sys, pathlib, taskit.training.ownership as lock\n"
        "with lock.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", script, str(run.path)]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    for forbidden in (run.resume, run.delete):
        with pytest.raises(RunError, match="in use"):
            forbidden()
    holder.kill()
    holder.communicate()
    with locked(run.path):  # the kernel gave the lock back
        pass


def test_events_survive_a_torn_line(tmp_path):
    run = made(tmp_path / "run")
    run.folder.append(Event("step", step=1, steps=2, epoch=1, loss=0.0, time=5.0))
    with (run.path / "events.jsonl").open("a") as lines:
        lines.write('{"kind": "st')
    assert run.events() == (Event("step", step=1, steps=2, epoch=1, loss=0.0, time=5.0),)
    run.folder.mend_events()
    run.folder.append(Event("epoch", step=1, steps=2, epoch=1, metric=0.0, time=6.0))
    assert [event.kind for event in run.events()] == ["step", "epoch"]
    assert [event.kind for event in run.events(since=1)] == ["epoch"]


def test_progress_reads_the_events(tmp_path):
    run = made(tmp_path / "run")
    assert run.progress.steps == 0
    for step in (1, 2, 3):
        run.folder.append(Event("step", step=step, steps=10, epoch=1, loss=1 / step, time=100 + 2 * step))
    at = run.progress
    assert (at.step, at.steps, at.epoch, at.metric) == (3, 10, 1, None)
    assert at.loss == pytest.approx(1 / 3)
    assert at.seconds_left == 14.0


def broken(path, name, text):
    (path / name).write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("state.json", "{", r"state\.json"),
        ("state.json", "[]", "object"),
        ("state.json", '{"schema": 7, "state": "done"}', "version"),
        ("state.json", '{"schema": 1, "state": "asleep"}', "version"),
        ("owner.json", '{"process": 1}', r"owner\.json"),
        ("plan.json", '{"schema": 7}', "schema"),
        ("result.json", '{"metric": "accuracy"}', "version"),
        ("events.jsonl", "nonsense\n", r"events\.jsonl"),
    ],
)
def test_half_a_folder_is_one_sentence(name, text, says, tmp_path):
    run = made(tmp_path / "run", owner=alive())
    broken(run.path, name, text)
    with pytest.raises(RunError if name != "plan.json" else Exception, match=says) as error:
        _ = (Run(run.path).state, run.result, run.events(), run.plan)
    assert str(error.value).endswith(".")


def test_runs_are_listed_and_the_rest_left_out(tmp_path, capsys):
    made(tmp_path / "one", "done")
    made(tmp_path / "two", owner=DEAD)
    made(tmp_path / "odd")
    broken(tmp_path / "odd", "state.json", "{")
    (tmp_path / "notes").mkdir()
    assert [run.path.name for run in list_runs(tmp_path)] == ["one", "two"]
    assert main(["runs", "--root", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in listed] == ["done", "failed"]
    assert main(["runs", "--root", str(tmp_path)]) == 0
    assert "failed" in capsys.readouterr().out
    assert main(["runs", "delete", str(tmp_path / "two"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["asked"] == "delete"
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("words", [["stop", "nowhere"], ["--root", "nowhere"], ["resume", "."], ["delete", "."]])
def test_mistakes_are_one_sentence(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["runs", *words]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("taskit: ")


def test_a_taken_folder_is_refused(plan, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        start(plan, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_stopped_owner_has_a_moment_to_let_go(tmp_path):
    run = made(tmp_path / "run", "stopped")
    held, let_go = threading.Event(), threading.Event()

    def own():
        with locked(run.path):
            held.set()
            let_go.wait()

    owner = threading.Thread(target=own)
    owner.start()
    held.wait()
    with pytest.raises(RunError, match="in use"), locked(run.path):
        pass
    threading.Timer(0.5, let_go.set).start()
    run.delete()
    owner.join()
    assert not run.path.exists()
