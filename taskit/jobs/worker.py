"""Inside a Job: train the plan in the archive, and keep the run folder on the Hub, checkpoints included.

Events go to stdout, one JSON line each, which is what whoever follows the Job reads in its log.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download

from taskit.errors import HubError, TaskITError
from taskit.jobs.job import RUN
from taskit.planning.plan import Plan
from taskit.terminal import quiet_libraries
from taskit.training.ownership import NOTE
from taskit.training.run_folder import Event, event_line
from taskit.training.trainer import train
from taskit.zoo.hub.failures import hub_failures, patiently

UPLOAD_SECONDS = 300.0
LEFT_HERE = ("lock", NOTE)


class Keeper:
    """Commits the run folder as it is: a trainer waits for its watcher, so that nothing is half done meanwhile."""

    def __init__(self, api: HfApi, repo: str) -> None:
        self.api, self.repo = api, repo
        self.kept: float | None = None  # when, None before the first time

    def watch(self, event: Event) -> None:
        print(event_line(event), flush=True)
        if event.kind == "step" and (self.kept is None or time.monotonic() - self.kept >= UPLOAD_SECONDS):
            try:
                self.keep()
            except HubError as error:  # the next time may be better, and the last one must be
                print(f"taskit: {error}", flush=True)
            self.kept = time.monotonic()

    def keep(self) -> None:
        """One commit: what is here is added, what is no longer here is deleted.

        Raises:
            HubError: the Hub does not take it.
        """
        here = {
            path.as_posix(): path for path in Path(RUN).rglob("*") if path.is_file() and path.name not in LEFT_HERE
        }
        with hub_failures(f"saving the run to {self.repo}", self.repo):
            there = self.api.list_repo_files(self.repo, repo_type="dataset")
            gone = [CommitOperationDelete(name) for name in there if name.startswith(f"{RUN}/") and name not in here]
            added = [CommitOperationAdd(name, path) for name, path in here.items()]
            self.api.create_commit(self.repo, [*added, *gone], repo_type="dataset", commit_message="The run so far")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repo", help="the dataset repository that holds the archive and keeps the run")
    parser.add_argument("--tighten", action="store_true")
    options = parser.parse_args(argv)
    keeper = Keeper(HfApi(), options.repo)
    try:
        with quiet_libraries():
            return _run(keeper, options.tighten)
    except TaskITError as error:
        print(f"taskit: {error}", flush=True)
        return 1


def _run(keeper: Keeper, tighten: bool) -> int:
    def earlier() -> str:
        return snapshot_download(keeper.repo, repo_type="dataset", allow_patterns=f"{RUN}/*", local_dir=".")

    patiently(earlier, f"looking for an earlier part of the run in {keeper.repo}", keeper.repo)
    try:
        train(Plan.load("plan.json"), RUN, resume=Path(RUN).exists(), tighten=tighten, watch=keeper.watch)
        return 0
    except KeyboardInterrupt:  # the service ends Jobs with SIGTERM
        return 130
    finally:
        if Path(RUN).exists():
            patiently(keeper.keep, f"saving the run to {keeper.repo}", keeper.repo)


if __name__ == "__main__":
    sys.exit(main())
