"""What a method does once before the first step, kept in the run folder so that a resumed run does not repeat it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from taskit.errors import RunError
from taskit.step.parametrization import Decisions, Parametrization, Preparation

KEPT = "method.safetensors"  # weights with which the first step starts; decisions in its metadata


def make_ready(
    parametrization: Parametrization, preparation: Preparation, folder: Path, main: bool, wait: Callable[[], None]
) -> Decisions | None:
    """Prepare the model of ``preparation`` in ``form``, or bring back how it was prepared before a stop.

    Only the ``main`` process writes into the run's ``folder``; ``wait`` waits for all of them.

    Raises:
        RunError: what was kept is damaged, or cannot be written.
    """
    path, model = folder / KEPT, preparation.model
    if path.exists():
        decisions: Decisions | None = _load(path, model)
    else:
        decisions = parametrization.prepare(preparation)
        if decisions is not None and main:
            _save(path, model, decisions)
            shutil.rmtree(warm_up_folder(folder), ignore_errors=True)
    wait()  # nobody may find the file that another one is just writing
    parametrization.begin(model, decisions)
    return decisions


def warm_up_folder(folder: Path) -> Path:
    """Where the checkpoints of a warm-up are."""
    return folder / "warm-up"


def _parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad or ".lora_" in name}


def _save(path: Path, model: Any, decisions: Decisions) -> None:
    part = path.with_suffix(".part")
    try:
        tensors = {name: p.detach().cpu().contiguous() for name, p in _parameters(model).items()}
        save_file(tensors, part, metadata={"decisions": json.dumps(decisions)})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written ({error}); make room there and resume the run.") from error


@torch.no_grad()
def _load(path: Path, model: Any) -> Decisions:
    try:
        with safe_open(path, framework="pt") as file:
            for name, parameter in _parameters(model).items():
                parameter.copy_(file.get_tensor(name))
            return json.loads(file.metadata()["decisions"])
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged or of another plan; remove that file and resume the run again.") from error
