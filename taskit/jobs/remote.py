"""A run whose process is a Job: the same folder, brought up to date from the Hub by `refresh`."""

import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from huggingface_hub import JobInfo, JobStage, snapshot_download

from taskit.errors import RunError
from taskit.files import read_json, write_atomically
from taskit.jobs.job import FILE, RUN, Job, authenticated_api
from taskit.training.run_folder import LIVE
from taskit.training.runs import Run
from taskit.zoo.hub.failures import hub_failures, patiently

FETCHED = tuple(f"{RUN}/{name}" for name in ("adapter/*", "events.jsonl", "state.json", "result.json"))
EVENT = '{"kind"'  # how the worker's lines about events begin


class RemoteRun(Run):
    """Has the interface of any other run; ``refresh`` sends requests to the Hub, all else reads the folder.

    ``token`` is the user's; None is the one that he logged in with.

    Raises:
        RunError: ``path`` is no run folder, or its Job cannot be found again.
    """

    def __init__(self, path: str | Path, token: str | None = None) -> None:
        super().__init__(path)
        self.token = token
        self.job = Job.read(self.path)

    def refresh(self) -> None:
        """Bring events, log, state and, at the end, the adapter and the result up to what the Job has done.

        Raises:
            HubError: the Hub does not answer.
        """
        if self.state.name not in LIVE:
            return
        api = authenticated_api(self.token)
        info = self.job.inspect(api)
        if info.status.stage == JobStage.SCHEDULING:
            return
        lines = self.job.log(api)
        self._write_log(lines)
        if info.status.stage != JobStage.RUNNING:
            self._end(info, lines, str(api.token))
        elif self.state.name == "queued":
            self.folder.set_state("running")

    def stop(self) -> None:
        """Ask the service to end the Job; what it has saved on the Hub stays, for ``resume``.

        Raises:
            RunError: it is not running.
            HubError: the service refuses.
        """
        self.refresh()
        if self.state.name not in LIVE:
            raise RunError(f"The run in {self.path} is {self.state.name}; only a running one can be stopped.")
        self.job.cancel(authenticated_api(self.token))
        self.folder.set_state("stopping")

    def resume(self) -> None:
        """Start another Job of the same kind, which goes on from the last checkpoint on the Hub.

        Raises:
            RunError: the run is finished or under way.
            HubError: the service refuses.
        """
        self.refresh()
        if self.result is not None:
            raise RunError(f"The run in {self.path} is finished; start a new one in another folder.")
        if self.state.name in LIVE:
            raise RunError(f"The run in {self.path} is {self.state.name} already; wait for it or stop it first.")
        self.job = replace(self.job, events_before=len(self.events())).start(authenticated_api(self.token))
        self.job.write(self.path)
        self.folder.set_state("queued")

    def delete(self) -> None:
        """Remove the folder, and the repository with the archive and the run.

        Raises:
            RunError: the Job is still under way.
            HubError: the repository cannot be removed.
        """
        self.refresh()
        if self.state.name not in LIVE:
            with hub_failures(f"removing {self.job.repo}", self.job.repo):
                authenticated_api(self.token).delete_repo(self.job.repo, repo_type="dataset", missing_ok=True)
        super().delete()

    def _write_log(self, lines: list[str]) -> None:
        log = self.folder.path / "events.jsonl"
        before = log.read_text(encoding="utf-8").splitlines()[: self.job.events_before] if log.exists() else []
        events = [line.strip() for line in lines if line.startswith(EVENT)]
        write_atomically(log, "".join(f"{line}\n" for line in (*before, *events)))
        rest = "".join(f"{line.rstrip()}\n" for line in lines if not line.startswith(EVENT))
        write_atomically(self.folder.log, rest)

    def _end(self, info: JobInfo, lines: list[str], token: str) -> None:
        """Fetch what the Job saved of the run, the result last, and set the final state."""
        with tempfile.TemporaryDirectory() as scratch:

            def fetch() -> str:
                return snapshot_download(
                    self.job.repo,
                    repo_type="dataset",
                    allow_patterns=list(FETCHED),
                    local_dir=scratch,
                    token=token,
                )

            patiently(fetch, f"fetching the run from {self.job.repo}", self.job.repo)
            kept = Path(scratch) / RUN
            if (kept / "events.jsonl").exists():
                shutil.copyfile(kept / "events.jsonl", self.path / "events.jsonl")
            if (kept / "result.json").exists():
                shutil.rmtree(self.folder.adapter, ignore_errors=True)
                shutil.copytree(kept / "adapter", self.folder.adapter)
                write_atomically(self.path / "result.json", (kept / "result.json").read_text(encoding="utf-8"))
            state, message = self._ending(info, lines, kept)
        self.folder.set_state(state, message)

    def _ending(self, info: JobInfo, lines: list[str], kept: Path) -> tuple[str, str]:
        """(state, message) of a Job that has ended."""
        if (self.path / "result.json").exists():
            return "done", ""
        if info.status.stage == JobStage.CANCELED:
            return "stopped", ""
        with suppress(RunError):  # the message of the trainer, where it wrote one
            state = read_json(kept / "state.json")
            if state.get("state") == "failed" and state.get("message"):
                return "failed", state["message"]
        message = next((line for line in reversed(lines) if line.startswith("taskit: ")), None)
        if message:
            return "failed", message.removeprefix("taskit: ").strip()
        reason = (info.status.message or next((line for line in reversed(lines) if line.strip()), "")).strip()
        limit = self.job.timeout_seconds
        if "timeout" in reason.lower() or (info.durations and (info.durations.running_secs or 0) >= limit):
            return "failed", (
                f"The Job was ended at its limit of {limit // 60} minutes; taskit runs resume goes on from its last "
                "checkpoint."
            )
        return (
            "failed",
            f"The Job broke off ({reason.rstrip('.') or 'no reason given'}); see log.txt, then resume it.",
        )


def open_run(path: str | Path) -> Run:
    """The run in a folder, wherever it is trained; raises RunError where there is none."""
    return RemoteRun(path) if (Path(path) / FILE).exists() else Run(path)
