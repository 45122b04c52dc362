"""The run folder: the one truth about a run, written so that a stop at any moment leaves it whole.

``plan.json``, ``state.json`` (replaced by rename), ``events.jsonl`` (one event a line, appended),
``checkpoints/`` (complete or absent), ``adapter/`` and, last of all, ``result.json``.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from taskit.errors import RunError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Event:
    """What a watcher sees: ``kind`` is note, step, epoch or done; loss and metric where they apply."""

    kind: str
    message: str = ""
    step: int = 0
    steps: int = 0
    epoch: int = 0
    loss: float | None = None
    metric: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave.  Bytes are ints; before and after are on the evaluation split."""

    metric: str
    before: float
    after: float
    predicted_peak_bytes: int
    measured_peak_bytes: int
    measured_with: str
    train_seconds: float
    steps: int
    trainable_parameters: int
    best_epoch: int


class RunFolder:
    """Paths of a run folder and the few safe ways of writing into it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"

    def exists(self) -> bool:
        return (self.path / "state.json").exists()

    def create(self, plan: dict) -> None:
        """Make the folder for a new run.

        Raises:
            RunError: something else is there, or it cannot be written.
        """
        try:
            if self.path.exists() and any(self.path.iterdir()):
                raise RunError(f"{self.path} is not empty; choose another --out, or --resume the run in it.")
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.write_json("plan.json", plan)
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror}); choose another --out.") from error

    def write_json(self, name: str, value: dict) -> None:
        write_atomically(self.path / name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> dict:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path} holds no readable {name}; give the folder of a TaskIT run.") from error

    def set_state(self, state: str) -> None:
        self.write_json("state.json", {"schema": SCHEMA, "state": state})

    @property
    def state(self) -> str:
        return self.read_json("state.json")["state"]

    def append(self, event: Event) -> None:
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({k: v for k, v in asdict(event).items() if v not in (None, "", 0)}) + "\n")

    @contextmanager
    def running(self) -> Iterator[None]:
        """State ``running`` inside; ``stopped`` after Ctrl-C and ``failed`` after any other error."""
        self.set_state("running")
        try:
            yield
        except (KeyboardInterrupt, GeneratorExit):
            self.set_state("stopped")
            raise
        except BaseException:
            self.set_state("failed")
            raise
        self.set_state("done")


def write_atomically(path: Path, text: str) -> None:
    """Write beside ``path`` and rename, so that a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)  # noqa: PTH105
