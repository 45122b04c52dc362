"""TaskIT: plan, train and share LoRA adapters that fit a memory budget.

The public names are loaded when they are first used, so that ``import taskit`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskit.errors import TaskITError as TaskITError
    from taskit.planning.plan import Plan as Plan
    from taskit.planning.planner import make_plan as make_plan
    from taskit.planning.recipe import Recipe as Recipe
    from taskit.training.inference import evaluate_run as evaluate_run
    from taskit.training.inference import predict as predict
    from taskit.training.runs import Run as Run
    from taskit.training.runs import list_runs as list_runs
    from taskit.training.runs import start as start
    from taskit.training.trainer import train as train

__version__ = "0.1.0"  # here, because a Space, a container and a Job run TaskIT without installing it
_ROOMS = {
    "TaskITError": "taskit.errors",
    "Plan": "taskit.planning.plan",
    "Recipe": "taskit.planning.recipe",
    "Run": "taskit.training.runs",
    "evaluate_run": "taskit.training.inference",
    "list_runs": "taskit.training.runs",
    "make_plan": "taskit.planning.planner",
    "predict": "taskit.training.inference",
    "start": "taskit.training.runs",
    "train": "taskit.training.trainer",
}
__all__ = sorted(_ROOMS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'taskit' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)
