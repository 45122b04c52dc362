"""Claim: no form of h(r) trains to a better metric than the default, sqrt(ln(r + 1)), beyond the noise of the seeds.

    python benchmarks/rank_gain.py --data FOLDER [--tasks mnist sign_digits] [--seeds 0 1] [--quick]

Plans and trains real image tasks on the bundled backbone with every form of h(r) (TaskIT, Table 2).  The zoo is the
bundled one without the task's own adapter; each seed draws its own images.  Prints one row per form and writes
rank_gain.json; a stopped run goes on where it was, and later tasks and seeds join its table.  Beside the metric,
which the choice of the epoch blurs, stands the training loss of the last epoch.  `noise` is the standard error of the
difference to the default over all pairs of task and seed; `drowned` says that the difference is at most twice that.
"""

import argparse
import json
import platform
import random
import shutil
import statistics
import tempfile
import zipfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

from taskit.plan import Plan
from taskit.planning import make_plan
from taskit.scheduler.gain import FORMS
from taskit.training.recipe import Recipe
from taskit.training.run_folder import Event, Result
from taskit.training.trainer import train
from taskit.zoo import BUNDLED

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


def runs(source: Path, task: str, seed: int, recipe: Recipe, scratch: Path) -> list[dict]:
    """One row per form; forms that lead to the same ranks share one training run."""
    found, trained = [], {}
    zoo = without(task, scratch / "zoo")
    for form in FORMS:
        plan = make_plan(source, BACKBONE, BUDGET, zoo=zoo, recipe=recipe, gain=form, seed=seed)
        ranks = tuple(plan.ranks.values())
        if ranks not in trained:
            trained[ranks] = learn(plan, scratch / f"{task}-{seed}-{form}", recipe.epochs)
        result, loss = trained[ranks]
        row = {
            "task": task,
            "seed": seed,
            "form": form,
            "before": result.before,
            "after": result.after,
            "last_loss": loss,
            "trainable_parameters": plan.trainable_parameters,
            "inserted": sum(rank > 0 for rank in ranks),
            "mean_rank": sum(ranks) / max(1, sum(rank > 0 for rank in ranks)),
            "peak_bytes": plan.memory.peak_bytes,
            "budget_bytes": plan.budget_bytes,
        }
        print(
            f"{task:12} seed {seed} {form:10} {row['inserted']:3} locations, mean rank {row['mean_rank']:5.1f}: "
            f"{row['before']:.4f} -> {row['after']:.4f}, "
            f"loss {loss:.4f}",
            flush=True,
        )
        found.append(row)
    return found


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with TASK.zip of images")
    parser.add_argument("--tasks", nargs="+", default=["mnist", "sign_digits"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--rows", type=int, default=480, help="images drawn from each part of a task")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="one task, one seed, one epoch, 120 images")
    parser.add_argument("--out", type=Path, default=Path("rank_gain.json"))
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.seeds, options.rows, options.epochs = options.tasks[:1], options.seeds[:1], 120, 1
    setting = {"rows": options.rows, "epochs": options.epochs}  # tasks and seeds of later runs join the table
    saved = json.loads(options.out.read_text()) if options.out.exists() else {}
    rows = saved["rows"] if saved.get("setting") == setting else []
    done = {(row["task"], row["seed"]) for row in rows}
    packages = {name: version(name) for name in ("taskit", "torch", "transformers", "peft", "accelerate")}
    facts = {"command": "python benchmarks/rank_gain.py", "versions": packages, "machine": platform.machine()}
    for seed in options.seeds:
        for task in options.tasks:
            if (task, seed) in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                source = draw(options.data / f"{task}.zip", Path(folder) / task, options.rows, seed)
                rows += runs(source, task, seed, Recipe(epochs=options.epochs), Path(folder))
            facts |= {
                "setting": setting,
                "budget": BUDGET,
                "backbone": BACKBONE,
                "table": summary(rows),
                "rows": rows,
            }
            options.out.write_text(json.dumps(facts, indent=2) + "\n")
    for row in summary(rows):
        print(f"{row['form']:10}", *(f"{name} {line(row[name])}" for name in ("after", "last_loss")), sep="  ")


def line(found: dict) -> str:
    noise = "" if found["noise"] is None else f" ± {found['noise']:.4f}"
    verdict = "drowned in the noise" if found["drowned"] else "beyond the noise"
    return f"{found['mean']:.4f}, to default {found['to_default']:+.4f}{noise} ({verdict})"


if __name__ == "__main__":
    main()
