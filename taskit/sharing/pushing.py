"""Push a run's adapter: to a new repository, or as the next version in one that TaskIT made; always one commit."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from taskit.errors import HubError, HubUnavailableError
from taskit.sharing.publishing import gather_files
from taskit.zoo.adapter import read_config
from taskit.zoo.hub.failures import TRIES, hub_failures, wait_before
from taskit.zoo.hub.pulling import token_in_use

EMPTY = {".gitattributes"}  # what a new repository holds
CONFLICTS = (409, 412)  # created, or committed to, in the meantime
TITLE = "Adapter planned with TaskIT"  # of the commit


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where the adapter is now."""

    repo: str
    revision: str
    private: bool
    url: str


@dataclass(frozen=True, slots=True)
class _Remote:
    """A repository as it is; ``title`` is that of its last commit, "" where it holds nothing yet."""

    head: str
    private: bool
    tags: frozenset[str]
    title: str

    @property
    def is_empty(self) -> bool:
        return not self.title


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = True,
    token: str | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Pushed:
    """Publish the adapter of ``run`` as ``repo`` ("OWNER/NAME"), which appears whole or stays empty.

    The same push again finishes an earlier one, or changes nothing.  Another run on the same backbone becomes
    the next version, and the one before stays in the history.  A repository that holds anything else, or was
    changed since, is left alone.  Raises RunError for a run that is not finished, HubError for a name that is
    taken, a token that may not write, or a Hub that cannot be reached.

        push("runs/birds", "ann/birds", private=False).url
    """
    require_name(repo)
    token = token_in_use(token)
    if token is None:
        raise HubError("Pushing needs a token with write access; run hf auth login, or set HF_TOKEN.")
    with tempfile.TemporaryDirectory() as scratch:
        on_progress("writing the card")
        gather_files(run, repo, token, Path(scratch))
        on_progress(f"uploading to {repo}")
        return publish(Path(scratch), repo, private, HfApi(token=token))


def publish(folder: Path, repo: str, private: bool, api: HfApi) -> Pushed:
    """Upload ``folder`` in one commit on top of the head that was checked, so that nothing is overwritten."""
    base = read_config(folder).backbone
    for attempt in count(1):
        try:
            with hub_failures(f"pushing {repo}", repo):
                remote = _look(api, repo) or _create(api, repo, private)
                _require_ours(remote, repo, private, base)
                additions = [CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
                made = api.create_commit(repo, additions, commit_message=TITLE, parent_commit=remote.head)
                return Pushed(repo, made.oid, private, f"{api.endpoint}/{repo}")
        except HubUnavailableError as failure:  # also a lost answer: the next attempt finds what was committed
            wait_before(attempt, failure)
        except HubError as failure:
            if attempt >= TRIES or not _is_conflict(failure):
                raise
    raise AssertionError("every attempt returns, raises or is counted")


def _look(api: HfApi, repo: str) -> _Remote | None:
    """The repository, None where there is none that the token may see."""
    try:
        info = api.model_info(repo)
    except RepositoryNotFoundError:
        return None
    is_empty = {file.rfilename for file in info.siblings or ()} <= EMPTY
    title = "" if is_empty else api.list_repo_commits(repo)[0].title
    return _Remote(info.sha or "", bool(info.private), frozenset(info.tags or ()), title)


def _create(api: HfApi, repo: str, private: bool) -> _Remote:
    api.create_repo(repo, private=private)
    remote = _look(api, repo)
    if remote is None:
        raise HubUnavailableError(f"The Hub does not show the new {repo} yet; push again in a minute.")
    return remote


def _require_ours(remote: _Remote, repo: str, private: bool, base: str) -> None:
    """Raise HubError unless the repository is empty, or was left by TaskIT with an adapter for the same backbone."""
    if not remote.is_empty:
        if remote.title != TITLE:
            raise HubError(
                f"{repo} is taken: its last change is not from TaskIT and would be lost; choose another name, or "
                "delete it on the Hub."
            )
        if f"base_model:adapter:{base}" not in remote.tags:
            raise HubError(f"{repo} is taken: its adapter is for another backbone than {base}; choose another name.")
    if remote.private != private:
        now, say = ("private", "leave --public out") if remote.private else ("public", "say --public")
        raise HubError(f"{repo} exists and is {now}; {say}, or change that in its settings on the Hub.")


def _is_conflict(failure: HubError) -> bool:
    cause = failure.__cause__
    return isinstance(cause, HfHubHTTPError) and cause.response.status_code in CONFLICTS


def require_name(repo: str) -> None:
    """Raise HubError unless ``repo`` reads OWNER/NAME."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no name for a repository; write OWNER/NAME.") from error
    if repo.count("/") != 1:
        raise HubError(f"{repo!r} names no owner; write OWNER/{repo}.")
