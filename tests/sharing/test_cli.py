"""`taskit push` as a person types it: a process of its own, with the token in its environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskit.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def taskit(hub, tmp_path):
    """A function that runs one command against the hub."""

    def run(*words, token=""):
        home = {"HF_HOME": str(tmp_path / "hf-home"), "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
        env = os.environ | home | {"HF_TOKEN": token, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", "taskit", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )

    return run


def test_push_and_push_again(taskit, hub, lab):
    ann = hub.add_account("ann")
    first = taskit("push", str(lab.topics), "ann/topics", "--public", token=ann)
    assert (first.returncode, first.stdout) == (0, f"{hub.endpoint}/ann/topics (public)\n"), first.stderr
    repo = hub.state.repos["model", "ann/topics"]
    assert not repo.private
    assert "README.md" in repo.tree("main")
    again = taskit("push", str(lab.topics), "ann/topics", "--public", "--json", token=ann)
    assert json.loads(again.stdout)["revision"] == repo.head, again.stderr
    assert len(repo.commits) == 2  # the empty one, and one push
    assert ann not in first.stdout + first.stderr + again.stderr


def test_push_without_a_token_is_one_sentence(hub, lab, capsys):  # noqa: ARG001
    assert main(["push", str(lab.topics), "ann/topics"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("taskit: Pushing needs a token")
