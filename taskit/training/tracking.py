"""Send a run's losses and metrics to TensorBoard, Trackio or Weights & Biases, through Accelerate."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from accelerate.utils import parse_flag_from_env

from taskit.errors import RunError
from taskit.planning.plan import Plan
from taskit.training.run_folder import Event

# What accelerate launch sets for those who share out one model: only a plan with shards foresees that.
SHARDED = {f"ACCELERATE_USE_{name.upper()}": name for name in ("FSDP", "DeepSpeed", "Megatron_LM")}
Tracker = str | GeneralTracker  # a package (tensorboard, trackio, wandb), or a tracker of one's own


def make_accelerator(tracker: Tracker | None, folder: Path, shards: int = 1) -> Accelerator:
    """Accelerate's view of the devices and processes, with a tracker that writes under ``folder`` if it writes.

    Raises:
        RunError: the tracker's package is not installed, or the processes are to share one model in pieces.
    """
    if isinstance(tracker, str) and find_spec(tracker) is None:
        raise RunError(f"--track {tracker} needs a package of that name; run pip install {tracker}.")
    for flag, name in SHARDED.items():
        if parse_flag_from_env(flag) and not (name == "FSDP" and shards > 1):
            raise RunError(
                f"A run cannot be trained with {name}; make the plan with --shards N, and its backbone is shared out "
                "among N processes by FSDP2."
            )
    return Accelerator(log_with=tracker, project_dir=folder)


@contextmanager
def tracked(accelerator: Accelerator, plan: Plan) -> Iterator[None]:
    """Trackers are open inside; the recipe of ``plan`` is logged first."""
    if not accelerator.log_with:
        yield
        return
    recipe = {name: value for name, value in asdict(plan.training).items() if value is not None}
    facts = {"backbone": plan.backbone.id, "data": Path(plan.data.source).name, "budget_bytes": plan.budget_bytes}
    accelerator.init_trackers("taskit", config={**recipe, **facts, "seed": plan.seed})
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def track(accelerator: Accelerator, event: Event) -> None:
    """The loss of a step, the validation metric of an epoch, the evaluation metric of the whole."""
    name = {"epoch": "validation", "done": "evaluation"}.get(event.kind)
    if event.loss is not None:
        accelerator.log({"loss": event.loss}, step=event.step)
    if name and event.metric is not None:
        accelerator.log({name: event.metric}, step=event.step)
