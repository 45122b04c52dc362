"""The verb ``taskit together``: several datasets trained at once, related ones sharing more LoRA (TGLoRA)."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskit.backbone.sources import DTYPES
from taskit.cli.common import columns_of, show
from taskit.errors import PlanError
from taskit.terminal import progress_bar, status

if TYPE_CHECKING:
    from taskit.together.plan import JointPlan


def together(options: argparse.Namespace) -> None:
    from taskit.cli.tables import together_table
    from taskit.together.training import train_together
    from taskit.together.tree_picture import tree_text

    if options.resume:
        _require_resume_alone(options)
        plan = _load_started(options.out)
    else:
        plan = _plan(options)
    if not options.json:
        from rich.console import Console

        Console(stderr=True, highlight=False).print(tree_text(plan.tree))
    with progress_bar() as watch:
        results = train_together(plan, options.out, resume=options.resume, watch=watch)
    tasks = dict(zip(plan.tree.tasks, map(asdict, results), strict=True))
    show(options, {"tree": asdict(plan.tree), "tasks": tasks}, lambda: together_table(plan, results))
    print(f"Each dataset has a run folder in {options.out}, as {options.out}/{plan.tree.tasks[0]}", file=sys.stderr)


def add_together(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("data", metavar="DATA", nargs="*", help="two or more datasets of one kind, as taskit plan reads")
    sub.add_argument("--backbone", metavar="ID", help="a bundled name, a folder or a Hub id")
    sub.add_argument("--budget", help="6GiB, 800MiB, 60%% (from no update to full LoRA) or auto")
    sub.add_argument(
        "--groups",
        metavar="1,1,2,4",
        help="in how many groups the datasets share at each stage of the depth (default: 1, 1, half as many, each "
        "alone)",
    )
    sub.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="ROLE=NAME",
        help="name a column of all datasets yourself; may be repeated",
    )
    sub.add_argument("--batch-size", type=int, metavar="N", help="rows of each dataset that pass through at once")
    sub.add_argument("--max-length", type=int, metavar="N", help="tokens after which a text is cut")
    sub.add_argument("--epochs", type=int, metavar="N", help="passes over the largest dataset")
    sub.add_argument("--learning-rate", type=float, metavar="X", help="peak of the schedule; by the ranks without it")
    sub.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of backbone and adapters")
    sub.add_argument("--seed", type=int, default=0, help="seed of every random choice (default %(default)s)")
    sub.add_argument("--out", required=True, metavar="RUN", help="the folder to make, with a run folder for each")
    sub.add_argument("--resume", action="store_true", help="go on with a stopped run in --out")


def _plan(options: argparse.Namespace) -> "JointPlan":
    from taskit.planning.recipe import Recipe
    from taskit.together.plan import plan_together

    for name in ("backbone", "budget"):
        if getattr(options, name) is None:
            raise PlanError(f"--{name} is missing; give it, or --resume the run in --out.")
    names = ("batch_size", "max_length", "epochs", "learning_rate")
    given: dict[str, Any] = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    with status() as on_progress:
        return plan_together(
            options.data,
            options.backbone,
            options.budget,
            groups=_groups(options.groups),
            recipe=Recipe(**given),
            columns=columns_of(options),
            dtype=options.dtype,
            seed=options.seed,
            on_progress=on_progress,
        )


def _groups(text: str | None) -> tuple[int, ...] | None:
    try:
        return tuple(map(int, text.split(","))) if text is not None else None
    except ValueError:
        raise PlanError(f"--groups {text} is not understood; write for example 1,1,2,4.") from None


def _load_started(out: str) -> "JointPlan":
    from taskit.together.plan import JointPlan
    from taskit.training.runs import JOINT_PLAN

    return JointPlan.load(Path(out) / JOINT_PLAN)


def _require_resume_alone(options: argparse.Namespace) -> None:
    if options.data or options.groups:
        raise PlanError(f"The run in {options.out} goes on by its own plan; give --resume and --out alone.")
