"""Checkpoints of what is trained, never of the frozen base: each complete or absent."""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; epoch 0 is the start, with the linear head alone."""

    epoch: int
    best_epoch: int
    best_metric: float


class Checkpoints:
    """``epoch-N/`` holds trained weights, optimizer, schedule and progress; ``best-N.safetensors`` the best weights.

    A checkpoint is written beside its name and renamed once it is whole; what it replaces goes last.
    """

    def __init__(self, folder: Path, model: torch.nn.Module, optimizer: Any, schedule: Any) -> None:
        self.folder, self.optimizer, self.schedule = folder, optimizer, schedule
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def save(self, progress: Progress) -> Progress:
        weights = {name: p.detach() for name, p in self.trained.items()}
        if progress.best_epoch == progress.epoch:
            best = self._best(progress)
            save_file(weights, best.with_suffix(".part"))
            os.replace(best.with_suffix(".part"), best)  # noqa: PTH105
        part = self.folder / "epoch.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(weights, part / "trained.safetensors")
        states = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        torch.save(states, part / "optimizer.pt")
        (part / "progress.json").write_text(json.dumps(asdict(progress)))
        part.rename(self.folder / f"epoch-{progress.epoch:04d}")
        self._forget(progress)
        return progress

    def resume(self) -> Progress | None:
        """Load the newest whole checkpoint; None where there is none."""
        found = sorted(self.folder.glob("epoch-*"))
        if not found:
            return None
        self._load(found[-1] / "trained.safetensors")
        states = torch.load(found[-1] / "optimizer.pt", weights_only=True)
        self.optimizer.load_state_dict(states["optimizer"])
        self.schedule.load_state_dict(states["schedule"])
        return Progress(**json.loads((found[-1] / "progress.json").read_text()))

    def load_best(self, progress: Progress) -> None:
        self._load(self._best(progress))

    @torch.no_grad()
    def _load(self, path: Path) -> None:
        for name, tensor in load_file(path).items():
            self.trained[name].copy_(tensor)

    def _best(self, progress: Progress) -> Path:
        return self.folder / f"best-{progress.best_epoch:04d}.safetensors"

    def _forget(self, progress: Progress) -> None:
        for old in self.folder.glob("epoch-*"):
            if old.name != f"epoch-{progress.epoch:04d}":
                shutil.rmtree(old)
        for old in self.folder.glob("best-*.safetensors"):
            if old != self._best(progress):
                old.unlink()
