"""The plan outside the app: as a file, and as the commands that make the same one."""

import shlex
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from taskit.data.sources import PREFIX
from taskit.planning.recipe import Recipe
from taskit.ui.page import Chosen

FLAGS = ("batch_size", "max_length", "epochs", "learning_rate", "optimizer", "gradient_checkpointing")


def save(chosen: Chosen) -> Path:
    """Write plan.json for the visitor, with the data's name in place of its path on this machine."""
    path = Path(tempfile.mkdtemp(prefix="taskit-plan-"), "plan.json")
    plan = chosen.plan
    replace(plan, data=replace(plan.data, source=public_source(plan.data.source))).save(path)
    return path


def public_source(source: str) -> str:
    """The data's name without the folders of this machine."""
    return source if source.startswith(PREFIX) else Path(source).name


def command(chosen: Chosen) -> str:
    """The two commands that plan and train the same without the app."""
    plan, default = chosen.plan, Recipe()
    words = [
        "taskit",
        "plan",
        public_source(plan.data.source),
        "--backbone",
        plan.backbone.id,
        "--budget",
        chosen.budget.text,
    ]
    if plan.method != "taskit":
        words += ["--method", plan.method]
    if plan.backbone.quantization:
        words += ["--quantize", plan.backbone.quantization]
    for name, value in _named(plan.training).items():
        if value != getattr(default, name):
            flag = name.replace("_", "-")
            words += [f"--{flag}" if value is True else f"--no-{flag}"] if isinstance(value, bool) else []
            words += [] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return f"{shlex.join([*words, '--out', 'plan.json'])}\ntaskit train plan.json --out run"


def _named(recipe: Recipe) -> dict[str, Any]:
    """What of a plan's recipe a person has named: all but what planning decides where it is left open."""
    planned = {"learning_rate"} if recipe.rate_follows_ranks else set()
    planned |= {"gradient_checkpointing"} if recipe.recomputed_blocks is not None else set()
    names = (field.name for field in fields(Recipe) if field.name in FLAGS and field.name not in planned)
    return {name: getattr(recipe, name) for name in names}
