"""Start a run as a Job: upload an archive to a private repository, start the Job, make the run folder here."""

import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from huggingface_hub import HfApi

from taskit.errors import HubError
from taskit.jobs.job import ARCHIVE, Job
from taskit.jobs.packing import pack
from taskit.jobs.quote import Quote
from taskit.jobs.remote import RemoteRun
from taskit.planning.plan import Plan
from taskit.training.run_folder import RunFolder
from taskit.zoo.hub.failures import hub_failures


def submit(
    plan: Plan,
    out: str | Path,
    quote: Quote,
    api: HfApi,
    *,
    tighten: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> RemoteRun:
    """Train ``plan`` on the machine of ``quote`` into the run folder ``out``, which records the Job.

    After any error, neither the folder nor the repository is left behind.

    Raises:
        RunError: the folder is taken or cannot be written.
        HubError: the Hub or its Jobs service refuses.
    """
    folder = RunFolder(out)
    folder.reserve()
    repo = ""
    try:
        with hub_failures("looking up your account", "your account"):
            namespace = api.whoami()["name"]
        repo = f"{namespace}/taskit-{_plain(folder.path.resolve().name)}-{secrets.token_hex(3)}"
        on_progress(f"uploading plan and data to the private {repo}")
        revision = _upload(plan, repo, api)
        on_progress("starting the Job")
        job = Job(namespace, repo, revision, quote.machine.flavor, quote.timeout_seconds, tighten).start(api)
        folder.write_json("plan.json", plan.to_dict())
        job.write(folder.path)
        folder.set_state("queued")
        return RemoteRun(out)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        if repo:
            with suppress(HubError), hub_failures(f"removing {repo}", repo):
                api.delete_repo(repo, repo_type="dataset", missing_ok=True)
        raise


def _upload(plan: Plan, repo: str, api: HfApi) -> str:
    """The commit that holds the archive."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / ARCHIVE
        pack(plan, archive)
        with hub_failures(f"uploading to {repo}", repo):
            api.create_repo(repo, repo_type="dataset", private=True)
            made = api.upload_file(path_or_fileobj=archive, path_in_repo=ARCHIVE, repo_id=repo, repo_type="dataset")
    return made.oid


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "run"
