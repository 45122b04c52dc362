"""Claim: no form of h(r) trains to a better metric than the default, sqrt(ln(r + 1)), beyond the noise of the seeds.

    python -m benchmarks.rank_gain --data FOLDER [--tasks mnist sign_digits] [--seeds 0 1] [--quick] [--out FILE]

Plans and trains real image tasks on the bundled backbone with every form of h(r) (TaskIT, Table 2).  The zoo is the
bundled one without the task's own adapter; each seed draws its own images.  Later tasks and seeds join the table.
Beside the metric, which the choice of the epoch blurs, stands the training loss of the last epoch.  `noise` is the
standard error of the difference to the default over all pairs of task and seed; `drowned` says that the difference is
at most twice that.
"""

import random
import shutil
import statistics
import tempfile
import zipfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from benchmarks.common import Results, options
from taskit.methods import TASKIT
from taskit.planning.budget import parse_budget
from taskit.planning.context import resolve
from taskit.planning.plan import Plan
from taskit.planning.planner import decide
from taskit.planning.prepared_task import ComparedTask, compare_with_zoo, prepare_task
from taskit.planning.recipe import Recipe
from taskit.scheduler.gain import FORMS
from taskit.training.results import Result
from taskit.training.run_folder import Event
from taskit.training.trainer import train
from taskit.zoo.zoo import BUNDLED

BACKBONE, DEFAULT, BUDGET = "vit-mini-tiny32", "sqrt_ln1p", "40%"


def draw(archive: Path, folder: Path, rows: int, seed: int) -> Path:
    """Unpack ``rows`` images of each part of ``archive`` (train|test/CLASS/IMAGE), as many of every class."""
    with zipfile.ZipFile(archive) as images:
        classes = defaultdict(list)
        for name in sorted(images.namelist()):
            if not name.endswith("/"):
                classes[tuple(name.split("/")[-3:-1])].append(name)
        choose, each = random.Random(seed), rows // len({label for _, label in classes})
        for (part, label), names in classes.items():
            for name in choose.sample(names, min(len(names), each)):
                target = folder / part / label / Path(name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(images.read(name))
    return folder


def without(task: str, folder: Path) -> Path:
    """Copy the bundled adapters of the backbone, but for the task's own."""
    shutil.copytree(BUNDLED / BACKBONE, folder, ignore=shutil.ignore_patterns(task))
    return folder


def learn(plan: Plan, out: Path, last_epoch: int) -> tuple[Result, float]:
    """Train; the result, and the mean training loss of the last epoch."""
    losses: list[float] = []

    def watch(event: Event) -> None:
        if event.kind == "step" and event.epoch == last_epoch:
            losses.append(event.loss)

    return train(plan, out, watch=watch), statistics.fmean(losses)


class Runs:
    """One row per form; forms share the look at a task, and those that lead to the same ranks one training run."""

    def __init__(self, data: Path, rows: int, epochs: int, scratch: Path, held: ExitStack) -> None:
        self.data, self.rows, self.recipe, self.scratch = (
            data,
            rows,
            Recipe(epochs=epochs, learning_rate=2e-3),
            scratch,
        )
        self.held, self.compared = held, dict[tuple[str, int], ComparedTask]()
        self.trained: dict[tuple, tuple[Result, float]] = {}

    def drawn(self, task: str, seed: int) -> tuple[Path, Path]:
        """The task's images and the zoo without it."""
        source, zoo = self.scratch / f"{task}-{seed}", self.scratch / f"zoo-{task}"
        if not source.exists():
            draw(self.data / f"{task}.zip", source, self.rows, seed)
        return source, zoo if zoo.exists() else without(task, zoo)

    def compared(self, task: str, seed: int) -> ComparedTask:
        if (task, seed) not in self.compared:
            source, zoo = self.drawn(task, seed)
            prepared = prepare_task(source, BACKBONE, self.recipe, seed=seed)
            self.compared[task, seed] = self.held.enter_context(compare_with_zoo(prepared, zoo=zoo))
        return self.compared[task, seed]

    def row(self, task: str, seed: int, form: str) -> dict:
        plan = decide(resolve(self.compared(task, seed), TASKIT, {}, gain=form), parse_budget(BUDGET))
        ranks = tuple(plan.ranks.values())
        if (task, seed, ranks) not in self.trained:
            out = self.scratch / f"{task}-{seed}-{form}"
            self.trained[task, seed, ranks] = learn(plan, out, self.recipe.epochs)
        result, loss = self.trained[task, seed, ranks]
        inserted = [rank for rank in ranks if rank]
        print(f"{len(inserted)} locations: {result.before:.4f} -> {result.after:.4f}, loss {loss:.4f}", flush=True)
        return {
            "before": result.before,
            "after": result.after,
            "last_loss": loss,
            "trainable_parameters": plan.trainable_parameters,
            "inserted": len(inserted),
            "mean_rank": statistics.fmean(inserted or [0]),
            "peak_bytes": plan.memory.peak_bytes,
            "budget_bytes": plan.budget_bytes,
        }


def compare(rows: list[dict], measure: str, form: str) -> dict:
    """Mean of one measure for one form, and its difference to the default over the same tasks and seeds."""
    value = {(row["form"], row["task"], row["seed"]): row[measure] for row in rows}
    pairs = sorted({(task, seed) for _, task, seed in value})
    gaps = [value[form, *pair] - value[DEFAULT, *pair] for pair in pairs]
    noise = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else None
    gap = statistics.fmean(gaps)
    drowned = noise is None or abs(gap) <= 2 * noise
    mean = statistics.fmean(value[form, *pair] for pair in pairs)
    return {"mean": mean, "to_default": gap, "noise": noise, "drowned": drowned}


def summary(rows: list[dict]) -> list[dict]:
    return [{"form": form, **{m: compare(rows, m, form) for m in ("after", "last_loss")}} for form in FORMS]


def main() -> None:
    quick, data = "one task, one seed, one epoch, 120 images", "TASK.zip of images"
    parser = options("rank_gain", __doc__, quick=quick, data=data, required=True, seeds=(0, 1))
    parser.add_argument("--tasks", nargs="+", default=["mnist", "sign_digits"])
    parser.add_argument("--rows", type=int, default=480, help="images drawn from each part of a task")
    parser.add_argument("--epochs", type=int, default=4)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.tasks, chosen.seeds, chosen.rows, chosen.epochs = chosen.tasks[:1], chosen.seeds[:1], 120, 1
    results = Results(parser, chosen, rows=chosen.rows, epochs=chosen.epochs)
    wanted = [{"task": task, "seed": seed} for seed in chosen.seeds for task in chosen.tasks]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        runs = Runs(chosen.data, chosen.rows, chosen.epochs, Path(folder), held)
        results.rows("rows", [key | {"form": form} for key in wanted for form in FORMS], runs.row)
    table = summary(results.found["rows"])
    results.put(budget=BUDGET, backbone=BACKBONE, table=table)
    for row in table:
        print(
            f"{row['form']:10}",
            *(f"{name} {line(row[name])}" for name in ("after", "last_loss")),
            sep="  ",
        )


def line(found: dict) -> str:
    noise = "" if found["noise"] is None else f" ± {found['noise']:.4f}"
    verdict = "drowned in the noise" if found["drowned"] else "beyond the noise"
    return f"{found['mean']:.4f}, to default {found['to_default']:+.4f}{noise} ({verdict})"


if __name__ == "__main__":
    main()
