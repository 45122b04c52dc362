"""The run folder: the one truth about a run, written so that a stop at any moment leaves it whole.

``plan.json``, ``state.json`` (replaced by rename), ``events.jsonl`` (one event a line, appended), ``log.txt``,
``checkpoints/`` (complete or absent), ``adapter/`` and, last of all, ``result.json``.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

from taskit.errors import RunError, TaskITError, first_line
from taskit.files import read_json, write_json

SCHEMA = 1
STATES = ("queued", "running", "stopping", "stopped", "failed", "done")
LIVE = STATES[:3]
DEVICE_ERRORS = ("AcceleratorError", "OutOfMemoryError")  # of torch, which is not loaded to read a folder


@dataclass(frozen=True, slots=True)
class Event:
    """What a watcher sees: ``kind`` is note, resumed, step, epoch or done; loss and metric where they apply.

    ``time`` is in seconds since the epoch.
    """

    kind: str
    message: str = ""
    step: int = 0
    steps: int = 0
    epoch: int = 0
    loss: float | None = None
    metric: float | None = None
    time: float = 0.0


Watch = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class State:
    """``name`` is one of STATES; ``message`` is the sentence of a failed run."""

    name: str
    message: str = ""


class RunFolder:
    """Paths of a run folder and the safe methods of writing into it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"
        self.warm_up = self.path / "warm-up"  # checkpoints of a method's warm-up
        self.log = self.path / "log.txt"

    def exists(self) -> bool:
        return (self.path / "state.json").exists()

    def reserve(self) -> None:
        """Make the folder of a new run.

        Raises:
            RunError: something else is there, or it cannot be written.
        """
        try:
            if self.path.exists() and any(self.path.iterdir()):
                raise RunError(f"{self.path} is not empty; choose another --out, or --resume the run in it.")
            self.path.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir()
        except FileExistsError as error:
            raise RunError(f"{self.path} is taken; choose another --out, or --resume the run in it.") from error
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror}); choose another --out.") from error

    def write_json(self, name: str, value: dict) -> None:
        write_json(self.path / name, value)

    def read_json(self, name: str) -> dict:
        return read_json(self.path / name)

    def set_state(self, state: str, message: str = "") -> None:
        self.write_json("state.json", {"schema": SCHEMA, "state": state, "message": message})

    def read_state(self) -> State:
        """Raises RunError when this is no run folder, or one of another version."""
        values = self.read_json("state.json")
        if values.get("schema") != SCHEMA or values.get("state") not in STATES:
            raise RunError(f"{self.path} is a run of another version; use the TaskIT that made it, or train again.")
        return State(values["state"], values.get("message", ""))

    def append(self, event: Event) -> None:
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(event_line(event) + "\n")

    def read_events(self) -> tuple[Event, ...]:
        """All whole lines; what a kill has left of the last one is left out."""
        try:
            *lines, _torn = (self.path / "events.jsonl").read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return ()
        try:
            return tuple(Event(**json.loads(line)) for line in lines)
        except (ValueError, TypeError) as error:
            raise RunError(f"{self.path} has an unreadable events.jsonl; delete that file.") from error

    def mend_events(self) -> None:
        """Cut off what a kill has left of the last line, before others are appended."""
        path = self.path / "events.jsonl"
        if path.exists():
            with path.open("r+b") as lines:
                lines.truncate(lines.read().rfind(b"\n") + 1)

    @contextmanager
    def running(self) -> Iterator[None]:
        """State ``running`` inside; ``stopped`` after Ctrl-C and ``failed``, with a sentence, after any error."""
        self.set_state("running")
        try:
            yield
        except KeyboardInterrupt:
            self.set_state("stopped")
            raise
        except BaseException as error:
            message = sentence(error)
            with suppress(OSError):  # on a full disk the run counts as failed because its owner is gone
                self.set_state("failed", message)
            if isinstance(error, OSError) or type(error).__name__ in DEVICE_ERRORS:
                raise RunError(message) from error
            raise
        self.set_state("done")


def event_line(event: Event) -> str:
    """The event as one line of JSON, without what it leaves at its default."""
    values = {field.name: value for field in fields(Event) if (value := getattr(event, field.name)) != field.default}
    return json.dumps(values, ensure_ascii=False)


def stamped(event: Event) -> Event:
    return replace(event, time=round(time.time(), 3))


def sentence(error: BaseException) -> str:
    """What a person reads about an error: our own sentence, or the library's first line."""
    if isinstance(error, TaskITError):
        return str(error)
    said = first_line(error) if str(error).strip() else "no reason given"
    return f"The training broke off ({type(error).__name__}: {said}); see log.txt, then resume it."
