"""Jobs from the command line, against a service that really runs their command; huggingface_hub is unmodified."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file

from taskit.cli import runs as cli_runs
from taskit.cli.main import main
from taskit.errors import HubError, RunError
from taskit.jobs.job import Job
from taskit.jobs.quote import make_quote
from taskit.jobs.remote import RemoteRun, open_run
from taskit.jobs.submitting import submit
from taskit.jobs.worker import RunUploader
from taskit.training.inference import predict
from taskit.training.run_folder import LIVE
from taskit.training.runs import Run
from taskit.training.trainer import train
from tests.hub.faults import Fault
from tests.hub.state import small_file


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(cli_runs, "HUB_POLL_SECONDS", 0.5)


@pytest.fixture
def ask(capsys, plan, tmp_path, token):
    """(exit status, stdout, stderr) of ``taskit`` with these words; RUN and PLAN stand for paths."""
    assert token
    plan.save(tmp_path / "plan.json")
    known = {"RUN": str(tmp_path / "run"), "PLAN": str(tmp_path / "plan.json")}

    def call(*words):
        status = main([known.get(word, word) for word in words])
        return status, *capsys.readouterr()

    return call


START = ("train", "PLAN", "--out", "RUN", "--on", "hf-jobs:cpu-basic")


def job_of(hub):
    (job,) = [job for job in hub.state.jobs.values() if job.stage in ("SCHEDULING", "RUNNING")]
    return job


def repo_of(hub):
    (repo,) = [repo for (kind, _), repo in hub.state.repos.items() if kind == "dataset"]
    return repo


def wait_for(condition, seconds=400):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)


def refreshed(path):
    run = open_run(path)
    run.refresh()
    return run


def test_a_job_that_is_stopped_and_resumed_ends_as_a_run_here(ask, hub, plan, token, tmp_path):
    # The trainer waits for its first commit, the second after the archive's, and cannot be done too soon.
    hub.faults.append(Fault("stall", "POST /api/datasets/.*/commit/", skip=1))
    status, out, err = ask(*START, "--yes", "--json")
    assert status == 0, err
    assert "at most $" in err
    printed = json.loads(out)
    assert printed["job"]["url"].endswith(printed["job"]["id"])
    job, repo = job_of(hub), repo_of(hub)
    assert job.spec["timeoutSeconds"] > 600
    assert job.spec["secrets"] == {"HF_TOKEN": token}
    assert token not in json.dumps({**job.spec, "secrets": {}})
    assert repo.private
    wait_for(
        lambda: any(name.startswith("run/checkpoints/epoch-") for name in repo.tree("main")) or job.stage == "ERROR"
    )
    assert job.stage == "RUNNING", job.lines
    assert refreshed(tmp_path / "run").state.name == "running"
    assert ask("runs", "stop", "RUN")[0] == 0
    assert Run(tmp_path / "run").state.name == "stopping"
    status, out, _ = ask("runs", "--root", str(tmp_path), "--json")
    assert [run["state"] for run in json.loads(out)] == ["stopped"]
    assert ask("runs", "resume", "RUN")[0] == 0
    with pytest.raises(RunError, match="already"):
        RemoteRun(tmp_path / "run").resume()
    status, _, err = ask("runs", "watch", "RUN")
    assert status == 0, (err, [job.lines for job in hub.state.jobs.values()])
    run = open_run(tmp_path / "run")
    assert run.state.name == "done"
    kinds = [event.kind for event in run.events()]
    assert "resumed" in kinds
    assert kinds[-1] == "done"
    here = train(plan, tmp_path / "here")
    assert (run.result.after, run.result.steps) == (here.after, here.steps)
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("here", "run"))
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-6) for name in one)
    assert len(predict(tmp_path / "run", ["a red cat"])) == 1
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes(), path
    assert ask("runs", "resume", "RUN")[2].count("finished") == 1
    assert ask("runs", "delete", "RUN")[0] == 0
    assert not (tmp_path / "run").exists()
    assert ("dataset", repo.id) not in hub.state.repos


@pytest.fixture
def started(hub, plan, token, tmp_path):
    """A Job that is under way, with a timeout of its own."""
    api = HfApi(token=token)

    def start(seconds=600):
        quote = replace(make_quote(plan, "cpu-basic", api), timeout_seconds=seconds)
        return submit(plan, tmp_path / "run", quote, api), job_of(hub)

    return start


def test_a_job_that_dies_says_so_and_what_to_do(started, ask):
    _, job = started()
    job.process.kill()
    wait_for(lambda: job.stage == "ERROR")
    status, _, err = ask("runs", "watch", "RUN")
    assert status == 1
    assert err.strip().splitlines()[-1].endswith("see log.txt, then resume it.")
    assert ask("runs", "stop", "RUN")[2].strip().endswith("only a running one can be stopped.")


def test_a_timeout_says_so(started, tmp_path):
    _, job = started(seconds=1)
    wait_for(lambda: job.stage == "ERROR")
    state = refreshed(tmp_path / "run").state
    assert state.name == "failed"
    assert "limit of" in state.message


def test_the_trainers_own_sentence_comes_through(started, tmp_path):
    _, job = started()
    job.end("ERROR", "Job failed with exit code: 1")
    job.lines.append(("2020-01-01T00:00:00.000Z", "taskit: The plan's ranks need more; lower one."))
    state = refreshed(tmp_path / "run").state
    assert (state.name, state.message) == ("failed", "The plan's ranks need more; lower one.")


def test_a_job_that_is_gone_is_one_sentence(started, hub, tmp_path):
    _, job = started()
    job.end("CANCELED")
    del hub.state.jobs[job.id]
    with pytest.raises(HubError, match=r"no longer known .*\.$"):
        refreshed(tmp_path / "run")
    assert Run(tmp_path / "run").state.name in LIVE


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(402, "POST /api/jobs/"), "no credit"),
        (Fault(403, "POST /api/jobs/"), r"job\.write"),
        (Fault(500, "POST /api/jobs/"), "trouble of its own"),
        (Fault("drop", "POST /api/jobs/"), "connection"),
        (Fault(403, "POST /api/repos/create"), "write access"),
        (Fault(401, "GET /api/whoami-v2"), "log in"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_nothing(fault, says, ask, hub, tmp_path, waits):
    hub.faults.append(fault)
    status, out, err = ask(*START, "--yes")
    assert (status, out) == (1, "")
    sentence = err.strip().splitlines()[-1]
    assert sentence.startswith("taskit: ")
    assert sentence.endswith(".")
    assert re.search(says, sentence)
    assert not (tmp_path / "run").exists()
    assert not [key for key in hub.state.repos if key[0] == "dataset"]
    assert len(waits) < 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*START,), "--yes"),
        ((*START, "--yes", "--resume"), "--resume"),
        ((*START[:-1], "hf-jobs:huge", "--yes"), "cpu-basic, t4-small"),
        ((*START[:-1], "elsewhere", "--yes"), "hf-jobs:t4-small"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_made(words, says, ask, hub, tmp_path):
    status, _, err = ask(*words)
    assert status == 1
    assert says in err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()
    assert not hub.state.repos
    assert not hub.state.jobs


def test_without_a_token_nothing_is_asked(ask, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    status, _, err = ask(*START, "--yes")
    assert status == 1
    assert "hf auth login" in err
    assert not [line for line in hub.requests if "jobs" in line or line.startswith("POST")]


def test_the_hub_keeps_the_run_as_it_is(hub, token, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repo = hub.state.add_repo("ann/run", {"pack.zip": b"archive"}, kind="dataset", private=True)
    Path("run/checkpoints/epoch-0001-step-00000001").mkdir(parents=True)
    Path("run/checkpoints/epoch-0001-step-00000001/trained.safetensors").write_bytes(b"1")
    Path("run/lock").touch()
    Path("run/owner.json").write_text("{}")
    uploader = RunUploader(HfApi(token=token), "ann/run")
    uploader.upload()
    kept = "run/checkpoints/epoch-0001-step-00000001"
    assert set(repo.tree("main")) == {".gitattributes", "pack.zip", f"{kept}/trained.safetensors"}
    Path(kept).rename("run/checkpoints/epoch-0002-step-00000009")
    Path("run/state.json").write_text("{}")
    uploader.upload()
    whole = {"run/checkpoints/epoch-0002-step-00000009/trained.safetensors", "run/state.json"}
    assert set(repo.tree("main")) == {".gitattributes", "pack.zip", *whole}
    assert len(repo.commits) == 4, "two of our own: a checkpoint comes and goes in one piece"
    assert repo.tree("main")["run/state.json"].oid == small_file(b"{}").oid


def test_a_folder_of_another_version_is_one_sentence(started, tmp_path):
    _, job = started()
    job.end("CANCELED")
    (tmp_path / "run" / "job.json").write_text('{"number": 7}')
    with pytest.raises(RunError, match=r"another version.*\.$"):
        open_run(tmp_path / "run")


def test_the_archive_is_the_plan_that_was_asked_for(started, hub, plan, tmp_path):
    run, job = started()
    job.end("CANCELED")
    packed = repo_of(hub).tree("main")["pack.zip"]
    (tmp_path / "pack.zip").write_bytes(hub.state.blobs[packed.sha256])
    with ZipFile(tmp_path / "pack.zip") as archive:
        assert json.loads(archive.read("plan.json"))["training"]["epochs"] == plan.training.epochs
    assert isinstance(run.job, Job)
    assert run.job.revision == repo_of(hub).head
