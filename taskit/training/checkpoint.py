"""Checkpoints of what is trained, never of the frozen base: each complete or absent."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import PickleError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from taskit.errors import RunError, first_line
from taskit.files import read_json
from taskit.training.results import Scores

WEIGHTS = "trained.safetensors"
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, PickleError, SafetensorError)  # when read


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: whole epochs and optimizer steps done; epoch 0 is the start, with the linear head only.

    ``before`` is the score without any adapter, ``seconds`` the time spent, over all starts of the run.
    """

    epoch: int
    step: int
    best_epoch: int
    best_metric: float
    before: Scores
    device: str
    seconds: float = 0.0


class Checkpoints:
    """``epoch-E-step-S/`` holds trained weights, optimizer, schedule and progress; ``best-E.safetensors`` the best.

    A checkpoint is written beside its name and renamed once it is whole and on the disk; what it replaces goes last.
    """

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any, schedule: Any) -> None:
        self.folder, self.optimizer, self.schedule = folder, optimizer, schedule
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def save(self, progress: Progress) -> Progress:
        """Raises RunError, one sentence, where the disk is full or the folder cannot be written; nothing is torn."""
        with self._writing() as part:
            best, whole = self._best(progress), self.folder / _name(progress)
            self._write(part, progress)
            if progress.best_epoch == progress.epoch and not best.exists():
                shutil.copyfile(part / WEIGHTS, part / "best")
                _to_disk([part / "best"])
                (part / "best").rename(best)
            if not whole.exists():
                part.rename(whole)
        self._forget(progress)
        return progress

    def try_save(self) -> None:
        """Write all that a checkpoint holds, and remove it; raises as `save`."""
        with self._writing() as part:
            self._write(part, Progress(0, 0, 0, 0.0, Scores(0.0), ""))

    def resume(self) -> Progress | None:
        """Load the newest checkpoint; None where there is none.

        Raises:
            RunError: it was made by another plan, or is damaged.
        """
        found = find_checkpoints(self.folder)
        if not found:
            return None
        try:
            values = json.loads((found[-1] / "progress.json").read_text())
            progress = Progress(**{**values, "before": Scores.from_dict(values["before"])})
            self._load(found[-1] / WEIGHTS)
            states = torch.load(found[-1] / "optimizer.pt", weights_only=True)
            self.optimizer.load_state_dict(states["optimizer"])
            self.schedule.load_state_dict(states["schedule"])
        except DAMAGE as error:
            raise RunError(f"The checkpoint {found[-1]} is damaged; remove that folder and resume again.") from error
        return progress

    def load_best(self, progress: Progress) -> None:
        self._load(self._best(progress))

    @contextmanager
    def _writing(self) -> Iterator[Path]:
        """A fresh folder to write into, gone afterwards unless it was renamed."""
        part = self.folder / "checkpoint.part"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            yield part
        except (OSError, SafetensorError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            reason = getattr(error, "strerror", None) or first_line(error)
            raise RunError(
                f"The checkpoint cannot be written to {self.folder} ({reason}); make room there and resume the run."
            ) from error
        finally:  # also frees the space that the state of the run needs
            shutil.rmtree(part, ignore_errors=True)

    def _write(self, part: Path, progress: Progress) -> None:
        save_file({name: p.detach() for name, p in self.trained.items()}, part / WEIGHTS)
        states = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        torch.save(states, part / "optimizer.pt")
        (part / "progress.json").write_text(json.dumps(asdict(progress)))
        _to_disk(part.iterdir())

    @torch.no_grad()
    def _load(self, path: Path) -> None:
        tensors = load_file(path)
        if {n: t.shape for n, t in tensors.items()} != {n: p.shape for n, p in self.trained.items()}:
            raise RunError(f"{path} belongs to a plan with other ranks; bring back that plan.json, or train anew.")
        for name, tensor in tensors.items():
            self.trained[name].copy_(tensor)

    def _best(self, progress: Progress) -> Path:
        return self.folder / f"best-{progress.best_epoch:04d}.safetensors"

    def _forget(self, progress: Progress) -> None:
        for old in find_checkpoints(self.folder):
            if old.name < _name(progress):
                shutil.rmtree(old)
        for old in self.folder.glob("best-*.safetensors"):
            if old < self._best(progress):
                old.unlink()


def find_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(folder.glob("epoch-*-step-*"))


def require_device(folder: Path) -> None:
    """Raises RunError where the newest checkpoint was made on a GPU, and there is none now."""
    for found in find_checkpoints(folder)[-1:]:
        made_on = read_json(found / "progress.json").get("device")
        if made_on == "cuda" and not torch.cuda.is_available():
            raise RunError(
                f"The run in {folder.parent} has begun on a GPU, which is gone; bring it back, or train the plan "
                "anew with another --out."
            )


def _name(progress: Progress) -> str:
    return f"epoch-{progress.epoch:04d}-step-{progress.step:08d}"


def _to_disk(files: Iterable[Path]) -> None:
    """Past the caches, so that a name given by a rename never stands for less than the whole file."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
