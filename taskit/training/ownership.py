"""The process that trains in a run folder: a lock against a second writer, a note of it, the signals that stop it.

The lock goes with its process, however that ends.  The note, ``owner.json``, names process id and start time, so
that a reader can distinguish a living owner from a dead one whose id another process has taken over.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from taskit.errors import RunError
from taskit.files import read_json, write_json
from taskit.training.run_folder import RunFolder

NOTE = "owner.json"
STOP = "stop"  # an empty file: the owner was asked to stop
CLOCK_JITTER = 2.0  # seconds: the start time of a process is read off a clock that may be set meanwhile
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that trains; ``started`` is in seconds since the epoch."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "Owner":
        """Raises psutil.NoSuchProcess when there is none."""
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process while it lives, else None."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < CLOCK_JITTER
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def read_owner(folder: Path) -> Owner | None:
    """The last owner of a run folder, dead or alive; None where nobody has owned it yet."""
    try:
        return Owner(**read_json(folder / NOTE)) if (folder / NOTE).exists() else None
    except TypeError as error:
        raise RunError(f"{folder / NOTE} names no process; delete that file and resume the run.") from error


def write_owner(folder: Path, owner: Owner) -> None:
    """Note a new owner, and remove the file by which the last one was asked to stop."""
    if read_owner(folder) != owner:
        (folder / STOP).unlink(missing_ok=True)
        write_json(folder / NOTE, asdict(owner))


@contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Nobody else can write into ``folder`` inside, which must exist; an owner has ``patience`` seconds to let go.

    Raises:
        RunError: another process is at it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        owner = read_owner(folder)
        by = f" by process {owner.pid}" if owner else ""
        raise RunError(f"The run in {folder} is in use{by}; wait for it, or end it with taskit runs stop.") from error
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}); make it writable.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def owning(folder: RunFolder, main: bool) -> Iterator[None]:
    """Lock, owner and state of the run; only the main process has to do with them."""
    if not main:
        yield
        return
    with locked(folder.path):
        if (folder.path / "result.json").exists():
            raise RunError(f"The run in {folder.path} is finished; start a new one with another --out.")
        write_owner(folder.path, Owner.of(os.getpid()))
        folder.mend_events()
        with folder.running():
            yield


class Interrupts:
    """Ctrl-C and SIGTERM: at once wherever nothing is half done, else as soon as it is done.

    Inside ``listening``, both signals raise KeyboardInterrupt, but inside ``deferred`` only at its end.
    """

    def __init__(self) -> None:
        self._waiting = self._asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt

    def _handle(self, *_: Any) -> None:
        if not self._waiting:
            raise KeyboardInterrupt
        self._asked = True
