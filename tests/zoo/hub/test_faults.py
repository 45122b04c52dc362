"""Every request of a push and of a pull, spoilt in every way: it succeeds, or one sentence says what happened.

Never is there half a repository or half a cache entry, and the same command afterwards always finishes.
"""

import re
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import _xet

from taskit.errors import HubError, TaskITError
from taskit.sharing.publishing import gather_files
from taskit.sharing.pushing import publish, push
from taskit.zoo.adapter import CONFIG, WEIGHTS
from taskit.zoo.hub import failures
from taskit.zoo.zoo import open_zoo
from tests.hub.faults import Fault
from tests.hub.fixtures import online
from tests.hub.world import WRITER

KINDS = (401, 403, 404, 409, 412, 429, 500, 503, "drop", "cut")
PASSING = {429, 500, 503, "drop", "cut"}  # a fault that strikes once and that asking again mends


@pytest.fixture(scope="session")
def staged(running_hub, opened_lab, tmp_path_factory):
    """Everything that a push of the rhymes uploads; made once, for no test changes it."""
    folder = tmp_path_factory.mktemp("staged")
    running_hub.reset()
    with online(tmp_path_factory.mktemp("hf-home")):
        opened_lab.join(running_hub)
        gather_files(opened_lab.rhymes, "ann/rhymes", running_hub.add_account("ann"), folder)
    return folder


def require_sentence(error):
    text = str(error)
    assert text.endswith(".")
    assert "\n" not in text
    assert 20 < len(text) < 400


def repo_state(hub, repo):
    """absent, empty or whole; anything else is half a repository."""
    found = hub.state.repos.get(("model", repo))
    if found is None:
        return "absent"
    files = set(found.commits[-1][1]) - {".gitattributes"}
    assert not files or files >= {CONFIG, WEIGHTS, "README.md", "plan.json", "taskit.json", "plan.png"}
    return "whole" if files else "empty"


def each_request(hub, run):
    """(pattern, how many equal ones came before) of each request of ``run()``."""
    hub.requests.clear()
    run()
    lines = [re.sub(r"[0-9a-f]{40,64}", "*", line) for line in hub.requests]
    patterns = [re.escape(line).replace(r"\*", "[0-9a-f]{40,64}") + "$" for line in lines]
    return [(pattern, patterns[:n].count(pattern)) for n, pattern in enumerate(patterns)]


@pytest.mark.parametrize("kind", KINDS)
def test_push(kind, either_hub, staged, waits):
    api = HfApi(token=either_hub.add_account("ann"))
    requests = each_request(either_hub, lambda: publish(staged, "ann/clean", True, api))
    assert len(requests) >= 6
    for n, (pattern, skip) in enumerate(requests):
        repo = f"ann/r{n}"
        either_hub.state.blobs.clear()
        fault = Fault(kind, pattern.replace("clean", f"r{n}"), skip)
        either_hub.faults[:] = [fault]
        try:
            made = publish(staged, repo, True, api)
        except HubError as error:
            require_sentence(error)
            made = None
        assert made or kind not in PASSING, (kind, pattern)
        assert repo_state(either_hub, repo) == "whole" or not made
        assert not made or made.revision == either_hub.state.repos["model", repo].head
        assert fault.times == 0
        assert sum(waits) < 60 * (n + 1)
        either_hub.faults.clear()
        assert publish(staged, repo, True, api).repo == repo
        assert repo_state(either_hub, repo) == "whole"
        assert len(either_hub.state.repos["model", repo].commits) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_pull(kind, either_hub, staged, waits, tmp_path, monkeypatch):  # noqa: ARG001
    token = either_hub.add_account("ann")
    publish(staged, "ann/rhymes", True, HfApi(token=token))

    def pull(home):
        monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / home))
        _xet.XET_CONNECTION_INFO_CACHE.clear()
        return open_zoo("hub:ann", WRITER, token=token, ask=True)

    requests = each_request(either_hub, lambda: pull("clean"))
    assert len(requests) >= 9
    for n, (pattern, skip) in enumerate(requests):
        fault = Fault(kind, pattern, skip)
        either_hub.faults[:] = [fault]
        try:
            zoo = pull(f"home{n}")
        except TaskITError as error:
            require_sentence(error)
            found = False
        else:
            found = len(zoo.tasks) == 1
            assert found or len(zoo.skipped) == 1
            for _, reason in zoo.skipped:
                require_sentence(reason)
        assert fault.times == 0
        assert found or kind not in PASSING, (kind, pattern)
        either_hub.faults.clear()
        (task,) = pull(f"home{n}").tasks
        for name in (CONFIG, WEIGHTS):
            assert Path(task.folder, name).read_bytes() == (staged / name).read_bytes()
        assert not list((tmp_path / f"home{n}").rglob("*.part"))


@pytest.fixture
def impatient(monkeypatch):
    """A second without an answer is too long."""
    monkeypatch.setattr(failures, "READ_TIMEOUT", 1)
    monkeypatch.setattr(failures, "WRITE_TIMEOUT", 1)


@pytest.mark.usefixtures("impatient", "waits")
def test_a_push_to_a_hub_that_falls_silent(hub, staged):
    api = HfApi(token=hub.add_account("ann"))
    requests = each_request(hub, lambda: publish(staged, "ann/clean", True, api))
    for n, (pattern, skip) in enumerate(requests):
        hub.state.blobs.clear()
        fault = Fault("stall", pattern.replace("clean", f"r{n}"), skip)
        hub.faults[:] = [fault]
        try:
            publish(staged, f"ann/r{n}", True, api)
        except HubError as error:
            require_sentence(error)
        assert fault.times == 0
        assert repo_state(hub, f"ann/r{n}") in ("absent", "empty", "whole")


@pytest.mark.usefixtures("impatient", "waits")
@pytest.mark.parametrize(("source", "stalled"), [("hub", "GET /api/models$"), ("hub:ann/x", "GET /api/models/ann/x")])
def test_a_listing_of_a_hub_that_stays_silent(source, stalled, hub):
    hub.faults[:] = [Fault("stall", stalled, times=100)]
    with pytest.raises(HubError, match="did not answer"):
        open_zoo(source, WRITER)


def test_a_conflict_is_looked_at_again_and_not_overwritten(hub, staged, waits):  # noqa: ARG001
    api = HfApi(token=hub.add_account("ann"))
    repo = hub.state.add_repo("ann/x", private=True)
    hub.faults[:] = [Fault(412, "POST .*/commit/")]
    publish(staged, "ann/x", True, api)
    assert len(repo.commits) == 2
    hub.state.change(repo, {WEIGHTS: b"of somebody else"})
    with pytest.raises(HubError, match="is taken"):
        publish(staged, "ann/x", True, api)


def test_the_wait_that_the_hub_asks_for_is_kept(hub, staged, waits):
    hub.faults[:] = [Fault(429, "POST .*/commit/")]
    publish(staged, "ann/x", True, HfApi(token=hub.add_account("ann")))
    assert waits == [3]  # Retry-After is 2


def test_a_hub_that_stays_down_is_one_sentence(hub, lab, waits):
    ann = hub.add_account("ann")
    hub.faults[:] = [Fault(503, ".*", times=10_000)]
    with pytest.raises(HubError, match=r"HTTP 503.*try again"):
        push(lab.rhymes, "ann/x", token=ann)
    with pytest.raises(HubError, match=r"HTTP 503.*try again"):
        open_zoo("hub", WRITER, token=ann)
    assert sum(waits) < 120
    hub.faults.clear()
    assert push(lab.rhymes, "ann/x", token=ann).repo == "ann/x"


@pytest.mark.parametrize(
    ("repo", "who", "says"),
    [
        ("ann/x", None, "hf auth login"),
        ("ann/x", "wrong", "does not accept the token"),
        ("ann/x", "reader", "write access"),
        ("bob/x", "ann", "write access"),
        ("ann/taken", "ann", "is taken"),
        ("bob/hidden", "ann", "write access"),
        ("ann", "ann", "OWNER/ann"),
        ("ann/a b", "ann", "OWNER/NAME"),
        ("ann/../x", "ann", "OWNER/NAME"),
        ("ann/open", "ann", "exists and is public"),
    ],
)
def test_a_push_that_cannot_be_is_one_sentence_and_changes_nothing(repo, who, says, hub, lab):
    tokens = {
        "ann": hub.add_account("ann"),
        "reader": hub.add_account("ann", write=False),
        "wrong": "hf_x",
        None: None,
    }
    hub.state.add_repo("ann/taken", {"README.md": b"mine"}, private=True)
    hub.state.add_repo("bob/hidden", {"README.md": b"his"}, private=True)
    hub.state.add_repo("ann/open")
    before = {key: len(repo.commits) for key, repo in hub.state.repos.items()}
    with pytest.raises(HubError, match=says) as refused:
        push(lab.rhymes, repo, token=tokens[who])
    require_sentence(refused.value)
    assert {key: len(repo.commits) for key, repo in hub.state.repos.items()} == before
