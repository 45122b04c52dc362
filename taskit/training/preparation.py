"""What a method does once before the first step, kept in the run folder so that a resumed run does not repeat it."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from taskit.errors import RunError
from taskit.step.parametrization import Decisions, Parametrization, Preparation
from taskit.training.run_folder import RunFolder

KEPT = "method.safetensors"  # weights with which the first step starts; decisions in its metadata


def prepare_once(
    parametrization: Parametrization, preparation: Preparation, folder: RunFolder, accelerator: Accelerator
) -> None:
    """Prepare the model of ``preparation``, or bring back how it was prepared before a stop.

    Only the main process writes into the run's ``folder``.

    Raises:
        RunError: what was kept is damaged, or cannot be written.
    """
    path, model = folder.path / KEPT, preparation.model
    if path.exists():
        decisions: Decisions | None = _load(path, model)
    else:
        decisions = parametrization.prepare(preparation)
        if decisions is not None and accelerator.is_main_process:
            _save(path, model, decisions)
            shutil.rmtree(folder.warm_up, ignore_errors=True)
    accelerator.wait_for_everyone()  # nobody may find the file that another one is just writing
    parametrization.begin(model, decisions)


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


def _parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad or ".lora_" in name}
