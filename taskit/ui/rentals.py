"""Runs on machines rented from Hugging Face: the token of each, and the thread that updates their folders.

The folder of such a run lies beside the others; the page only reads it.
"""

import threading
import time
from pathlib import Path

from taskit.errors import HubError, TaskITError
from taskit.jobs.job import FILE
from taskit.jobs.remote import RemoteRun
from taskit.training.runs import Run

POLL_SECONDS = 5.0  # between two requests to the Hub


def is_rented(run: Run) -> bool:
    return (run.path / FILE).exists()


class Rentals:
    """The visitors' tokens by run, in memory only: after a restart the visitor gives his again."""

    def __init__(self) -> None:
        self._tokens: dict[Path, str] = {}
        self._errors: dict[Path, str] = {}

    def follow(self, run: Run, token: str) -> None:
        """Follow a run with its visitor's token."""
        self._tokens[run.path] = token

    def follows(self, run: Run) -> bool:
        return run.path in self._tokens

    def last_error(self, run: Run) -> str:
        """The error of the last request to the Hub, empty where it succeeded."""
        return self._errors.get(run.path, "")

    def opened(self, run: Run) -> Run:
        """The run as one that can be stopped, resumed or deleted.

        Raises:
            HubError: it is rented, and its token is not known.
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
        """Bring every run that is followed up to date, once."""
        for path, token in list(self._tokens.items()):
            if not (path / FILE).exists():  # deleted
                del self._tokens[path]
                continue
            try:
                RemoteRun(path, token).refresh()
            except (TaskITError, OSError) as error:
                self._errors[path] = str(error)
            else:
                self._errors.pop(path, None)

    def watch(self) -> None:
        """Refresh in a thread for as long as the app runs."""

        def forever() -> None:
            while True:
                time.sleep(POLL_SECONDS)
                self.refresh()

        threading.Thread(target=forever, daemon=True, name="taskit-rentals").start()
