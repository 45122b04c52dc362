"""Runs on machines rented from Hugging Face: whose token asks after which run, and how it goes.

The folder of such a run lies beside the others; a thread keeps it up to date, so that the page only reads it.
"""

import threading
import time
from pathlib import Path

from taskit.errors import HubError, TaskITError
from taskit.jobs.job import FILE
from taskit.jobs.remote import RemoteRun
from taskit.training.runs import Run

ASK_SECONDS = 5.0  # between two questions to the Hub


def is_rented(run: Run) -> bool:
    return (run.path / FILE).exists()


class Rentals:
    """The visitors' tokens by the run that each is for, in memory alone: after a restart he lends it again."""

    def __init__(self) -> None:
        self._tokens: dict[Path, str] = {}
        self._troubles: dict[Path, str] = {}

    def lend(self, run: Run, token: str) -> None:
        """Follow a run with its visitor's token."""
        self._tokens[run.path] = token

    def follows(self, run: Run) -> bool:
        return run.path in self._tokens

    def trouble(self, run: Run) -> str:
        """Why the Hub could not be asked the last time, empty where it could."""
        return self._troubles.get(run.path, "")

    def opened(self, run: Run) -> Run:
        """The run, to be stopped, resumed or deleted.

        Raises:
            HubError: it is rented, and its token is not here.
        """
        if not is_rented(run):
            return run
        token = self._tokens.get(run.path)
        if token is None:
            raise HubError(
                "This run is on a machine at Hugging Face; sign in, or give your token in the step Train, then try "
                "again."
            )
        return RemoteRun(run.path, token)

    def refresh(self) -> None:
        """Ask once after every run that is followed."""
        for path, token in list(self._tokens.items()):
            if not (path / FILE).exists():  # deleted
                del self._tokens[path]
                continue
            try:
                RemoteRun(path, token).refresh()
            except (TaskITError, OSError) as error:
                self._troubles[path] = str(error)
            else:
                self._troubles.pop(path, None)

    def watch(self) -> None:
        """Keep asking for as long as the app runs."""

        def forever() -> None:
            while True:
                time.sleep(ASK_SECONDS)
                self.refresh()

        threading.Thread(target=forever, daemon=True, name="taskit-rentals").start()
