"""Claim: at the same peak memory, and at the same trained parameters, TaskIT or a combination with it is the best.

    python -m benchmarks.methods --data FOLDER --work FOLDER [--families text vit-tiny] [--seeds 0 1 2] [--quick]

Every method trains the same rows with the same recipe: once with the peak that --budget allows, once with as many
trained parameters as uniform LoRA of rank 4 has.  With the first family, task and seed each is also trained at FASTER
times the usual learning rate, which it keeps for all others where the validation rows are for it by more than a
standard error.  References (DoRA and AdaLoRA at that rank, BitFit, full fine-tuning) are measured and not bounded.
Each run is kept in --work, so that a stopped benchmark goes on where it was, as one with an earlier --out does, in
which families that are not asked for stay.  What the papers claim is told beside what was found.  Learned tasks are
those that come with TaskIT for the backbone; where there are none, the family's own are learned first.
"""

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import common
from benchmarks.references import REFERENCES, train_reference
from benchmarks.transferring.families import Family, draw, families
from taskit.data.dataset import VALIDATION
from taskit.errors import TaskITError
from taskit.methods import METHODS, find_method
from taskit.methods.method import read_options
from taskit.planning.budget import parse_budget
from taskit.planning.context import resolve
from taskit.planning.plan import Plan
from taskit.planning.planner import decide, uniform_plan
from taskit.planning.prepared_task import ComparedTask, compare_with_zoo, prepare_task
from taskit.planning.recipe import Recipe
from taskit.scheduler import Constraints
from taskit.training.run_folder import RunFolder
from taskit.training.trainer import train
from taskit.zoo.zoo import BUNDLED

MEMORY, PARAMETERS = "same peak", "same parameters"
RANK = 4  # of the uniform LoRA whose parameters the second regime gives everyone
SHARING = 2  # Pear ends with half of the parameters that its ranks have
FASTER = 4  # the other learning rate that is tried
RANKLESS = ("head", "soup", "lorahub")  # have no ranks that a number of parameters could bound
SIZES = {"text": (300, 400), "image": (300, 400), "vit-tiny": (80, 120)}  # rows: every cell is a whole run
QUICK = {"train_rows": 120, "test_rows": 120, "epochs": 2}
UNIFORM = "uniform"
CLAIMS = (  # regime, method, what the paper says of it beside uniform LoRA
    (MEMORY, "taskit", "TaskIT: better than LoRA at the same memory"),
    (PARAMETERS, "taskit", "TaskIT, with as many parameters as LoRA"),
    (PARAMETERS, "pi", "π-Tuning, Tables 3 and 5: better than LoRA, the most with few rows"),
    (PARAMETERS, "cdra", "CDRA-SPT, VTAB-1k: 74.5 against LoRA's 72.6 at .5 % of the parameters"),
    (PARAMETERS, "pear", "Pear, VTAB-1k: as good as LoRA with half the parameters"),
    (PARAMETERS, "eva", "EVA: a better start than a random one"),
    (PARAMETERS, "dora", "DoRA: better than LoRA at the same rank"),
    (PARAMETERS, "adalora", "AdaLoRA: better than LoRA at the same budget of ranks"),
)
Look = Callable[[], ComparedTask]


def learned(options: argparse.Namespace, family: Family) -> str | None:
    """The zoo of a family: None for the bundled one, else a folder in which its tasks are learned now."""
    if (BUNDLED / family.backbone.rpartition("/")[2]).is_dir():
        return None
    zoo = options.work / family.name / "zoo"
    for task in family.learned:
        if not (zoo / task / "adapter_config.json").exists():
            source = drawn(options, family, task, 0)
            run = options.work / family.name / "learning" / task
            shutil.rmtree(run, ignore_errors=True)
            train(uniform_plan(source, family.backbone, 8, recipe=recipe_of(family)), run)
            zoo.mkdir(parents=True, exist_ok=True)
            (run / "adapter").rename(zoo / task)
    return str(zoo)


def drawn(options: argparse.Namespace, family: Family, task: str, seed: int) -> Path:
    folder = options.work / family.name / f"seed{seed}" / task / "rows"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        draw(options.data, task, (family.train_rows, family.test_rows), seed, folder / task)
        (folder / "whole").touch()
    return folder / task


def rows_of(
    options: argparse.Namespace, family: Family, task: str, seed: int, faster: dict[tuple[str, str], int]
) -> list[dict[str, Any]]:
    """The row of every regime and method; the task is looked at once for all of them, and not where all was done.

    ``faster`` are the rates by regime and method; what is not in there yet is settled here.
    """
    with ExitStack() as stack:

        @cache
        def compared() -> ComparedTask:
            prepared = prepare_task(drawn(options, family, task, seed), family.backbone, recipe_of(family), seed=seed)
            return stack.enter_context(compare_with_zoo(prepared, zoo=learned(options, family)))

        def run(regime: str, method: str, times: int) -> dict[str, Any]:
            return one_run(options, family, task, regime, method, seed, times, compared)

        keys = [
            (regime, method)
            for regime in (MEMORY, PARAMETERS)
            for method in options.methods
            if regime == MEMORY or method not in (*REFERENCES, *RANKLESS)
        ]
        return [run(*key, faster[key]) if key in faster else at_best_rate(run, *key, faster) for key in keys]


def at_best_rate(
    run: Callable[[str, str, int], dict[str, Any]], regime: str, method: str, faster: dict[tuple[str, str], int]
) -> dict[str, Any]:
    """The row of one method at its better rate, which is written into ``faster``."""
    usual = run(regime, method, 1)
    faster[regime, method] = 1
    if not usual.get("learns"):
        return usual
    other = run(regime, method, FASTER)
    noise = (usual["validation"] * (1 - usual["validation"]) / usual["validation_rows"]) ** 0.5
    if other.get("validation", 0.0) > usual["validation"] + noise:
        faster[regime, method] = FASTER
    better = other if faster[regime, method] == FASTER else usual
    return better | {"tried": [usual["validation"], other.get("validation")]}


def one_run(
    options: argparse.Namespace,
    family: Family,
    task: str,
    regime: str,
    method: str,
    seed: int,
    faster: int,
    compared: Look,
) -> dict[str, Any]:
    """The row of one training at ``faster`` times its rate, from the folder where it was done before."""
    folder = folder_of(options.work, family.name, task, regime, method, seed, faster)
    kept = folder / "row.json"
    if kept.exists():
        return json.loads(kept.read_text())
    about = f"{family.name} {task} seed {seed}, {regime}: {method}, rate x {faster}"
    print(f"{time.strftime('%H:%M:%S')} {about}", flush=True)
    row: dict[str, Any] = {"task": task, "seed": seed, "regime": regime, "method": method, "faster": faster}
    try:
        if method in REFERENCES:
            row |= train_reference(method, uniform(options, family, task, seed), empty(folder / "run"), faster)
        else:
            count = uniform(options, family, task, seed).trainable_parameters if regime == PARAMETERS else None
            row |= trained(compared(), method, options.budget, count, empty(folder / "run"), faster)
        row |= validated(folder / "run", family.train_rows)
    except TaskITError as error:
        row["refused"] = str(error)
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(row, indent=1))
    shutil.rmtree(folder / "run", ignore_errors=True)  # a run of full fine-tuning is a whole model
    return row


def folder_of(work: Path, family: str, task: str, regime: str, method: str, seed: int, faster: int) -> Path:
    place = work / family / f"seed{seed}" / task / regime.replace(" ", "-")
    return place / f"{method.replace('+', '-')}-x{faster}"


def unpack(found: dict[str, Any], work: Path) -> None:
    """Put the rows of an earlier table into their folders; what is there stays."""
    for family, part in found.items():
        for row in part.get("rows", ()) if isinstance(part, dict) else ():
            folder = folder_of(work, family, *(row[key] for key in ("task", "regime", "method", "seed", "faster")))
            if not (folder / "row.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "row.json").write_text(json.dumps(row, indent=1))


def validated(run: Path, train_rows: int) -> dict[str, Any]:
    """The accuracy on the validation rows of the epoch that the run kept, and how many rows these are, about."""
    epochs = [event.metric for event in RunFolder(run).read_events() if event.kind == "epoch"]
    found = {"validation": max(epochs)} if epochs else {}
    return found | {"validation_rows": round(VALIDATION * train_rows)}


def empty(run: Path) -> Path:
    """The folder of a run, without what a stopped one left."""
    shutil.rmtree(run, ignore_errors=True)
    return run


def trained(
    compared: ComparedTask, method: str, budget: str, parameters: int | None, run: Path, faster: int
) -> dict[str, Any]:
    """Plan by ``method`` within ``budget``, or with as many trained ``parameters`` whatever the memory, and train."""
    start, chosen = time.perf_counter(), find_method(method)
    bound = SHARING * parameters if parameters and method.endswith("pear") else parameters
    known = resolve(compared, chosen, read_options(chosen, {}), constraints=Constraints(max_parameters=bound))
    plan = decide(known, parse_budget("100%" if bound else budget))
    planned = time.perf_counter() - start
    rate = faster * plan.training.rate(plan.ranks.values())
    result = train(replace(plan, training=replace(plan.training, learning_rate=rate)), run)
    names = ("before", "after", "predicted_peak_bytes", "measured_peak_bytes", "train_seconds")
    row = {name: getattr(result, name) for name in (*names, "trainable_parameters", "discarded_energy")}
    size = (run / "adapter" / "adapter_model.safetensors").stat().st_size
    row["learns"] = any(plan.ranks.values()) and method not in RANKLESS
    return row | {"plan_seconds": round(planned, 1), "adapter_bytes": size, "budget_bytes": plan.budget_bytes}


def uniform(options: argparse.Namespace, family: Family, task: str, seed: int) -> Plan:
    """LoRA of rank RANK everywhere, which the regime of equal parameters and the references go by."""
    kept = options.work / family.name / f"seed{seed}" / task / "uniform.json"
    if not kept.exists():
        source = drawn(options, family, task, seed)
        uniform_plan(source, family.backbone, RANK, recipe=recipe_of(family), seed=seed).save(kept)
    return Plan.load(kept)


def recipe_of(family: Family) -> Recipe:
    """All methods keep all activations of the whole batch, so that the same peak asks the same of each."""
    return Recipe(
        epochs=family.epochs,
        batch_size=family.batch_size,
        max_length=family.max_length,
        learning_rate=2e-3,
        gradient_checkpointing=False,
        micro_batch=family.batch_size,
    )


def summary(rows: list[dict[str, Any]], tasks: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each regime and method: means over tasks, the spread of that mean over seeds."""
    found = []
    for regime, method in dict.fromkeys((row["regime"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["regime"], row["method"]) == (regime, method) and "after" in row]
        seeds = sorted({row["seed"] for row in mine})
        by_seed = {seed: statistics.mean(row["after"] for row in mine if row["seed"] == seed) for seed in seeds}
        if len(mine) < len(tasks):
            continue
        one: dict[str, Any] = {"regime": regime, "method": method, "by_seed": by_seed}
        one["accuracy"] = statistics.mean(by_seed.values())
        one["faster"] = mine[0]["faster"]
        one["spread"] = statistics.stdev(by_seed.values()) if len(by_seed) > 1 else None
        for name in ("trainable_parameters", "adapter_bytes", "predicted_peak_bytes", "measured_peak_bytes",
                     "train_seconds"):  # fmt: skip
            values = [row[name] for row in mine if row.get(name) is not None]
            one[name] = statistics.mean(values) if values else None
        found.append(one)
    return found


def verdicts(means: list[dict[str, Any]]) -> list[str]:
    """Each claim, and whether it holds beyond the spread of what the seeds say, each seed compared with itself."""
    by_name = {(one["regime"], one["method"]): one for one in means}
    lines = []
    for regime, method, claim in CLAIMS:
        # references are measured once, at the rank that the regime of equal parameters goes by
        one, base = by_name.get((MEMORY if method in REFERENCES else regime, method)), by_name.get((regime, UNIFORM))
        if one and base:
            gains = [
                value - base["by_seed"][seed] for seed, value in one["by_seed"].items() if seed in base["by_seed"]
            ]
            lines.append(f"{regime}: {claim}: {judged(gains)}")
    for regime in (MEMORY, PARAMETERS):
        here = [one for one in means if one["regime"] == regime and one["method"] in METHODS]
        own = [one for one in here if "taskit" in one["method"]]
        if own:
            best = max(here, key=lambda one: one["accuracy"])
            ours = max(own, key=lambda one: one["accuracy"])
            lines.append(
                f"{regime}: best {best['method']} {best['accuracy']:.3f}, best with TaskIT "
                f"{ours['method']} {ours['accuracy']:.3f}"
            )
    return lines


def judged(gains: list[float]) -> str:
    """The mean gain over the seeds, and what it says of a claim."""
    gain = statistics.mean(gains)
    if len(gains) < 2:
        return f"{gain:+.3f}: one seed decides nothing"
    spread = statistics.stdev(gains)
    word = "within the seeds' spread" if abs(gain) <= spread else "confirmed" if gain > 0 else "refuted"
    return f"{gain:+.3f} (spread {spread:.3f}, {len(gains)} seeds): {word}"


def report(family: Family, means: list[dict[str, Any]], refused: list[dict[str, Any]]) -> None:
    console = Console(width=140)
    for regime in (MEMORY, PARAMETERS):
        table = Table(title=f"{family.name}: {regime}", title_justify="left")
        for name in ("method", "accuracy", "±", "parameters", "adapter", "predicted MiB", "measured MiB", "s"):
            table.add_column(name, justify="left" if name == "method" else "right")
        for one in sorted((m for m in means if m["regime"] == regime), key=lambda m: -m["accuracy"]):
            peaks = [
                one[name] and f"{one[name] / 2**20:.1f}" for name in ("predicted_peak_bytes", "measured_peak_bytes")
            ]
            spread = "" if one["spread"] is None else f"{one['spread']:.4f}"
            size = f"{one['adapter_bytes'] / 1e3:.0f} kB" if one["adapter_bytes"] else ""
            table.add_row(
                one["method"], f"{one['accuracy']:.4f}", spread, f"{one['trainable_parameters']:,.0f}", size,
                *peaks, f"{one['train_seconds']:.0f}",
            )  # fmt: skip
        console.print(table)
    for row in refused:
        console.print(f"refused: {row['task']}, {row['regime']}, {row['method']}: {row['refused']}")
    for line in verdicts(means):
        console.print(line)


def joined(out: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What an earlier command found of other families, with both commands and all seeds."""
    if not out.exists():
        return facts
    earlier = json.loads(out.read_text())
    commands = earlier["command"] if isinstance(earlier["command"], list) else [earlier["command"]]
    facts["command"] = list(dict.fromkeys([*commands, facts["command"]]))
    facts["seeds"] = sorted({*earlier["seeds"], *facts["seeds"]})
    return earlier | facts


def main() -> None:
    quick, data = "one task, few rows, two epochs", "TASK.zip and TASK_train.csv"
    parser = common.options("methods", __doc__, quick=quick, data=data, required=True, seeds=(0, 1, 2))
    parser.add_argument("--work", type=Path, required=True, help="where rows and runs are kept")
    parser.add_argument("--families", nargs="+", default=["text", "vit-tiny"])
    parser.add_argument("--tasks", nargs="+", help="only these of a family's new tasks")
    parser.add_argument("--methods", nargs="+", default=[*METHODS, *REFERENCES])
    parser.add_argument("--budget", default="60%")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    known = families(chosen.data)
    found = joined(chosen.out, common.facts(parser, chosen))
    found |= {"budget": chosen.budget, "rank": RANK, "quick": chosen.quick, "faster": FASTER}
    unpack(found, chosen.work)
    # rates that an earlier family has settled
    means = [one for part in found.values() if isinstance(part, dict) for one in part.get("means", ())]
    faster: dict[tuple[str, str], int] = {(one["regime"], one["method"]): one["faster"] for one in means}
    for name in chosen.families:
        train_rows, test_rows = SIZES[name]
        family = replace(known[name], train_rows=train_rows, test_rows=test_rows)
        family = replace(family, **QUICK) if chosen.quick else family
        tasks = tuple(t for t in family.new if t in (chosen.tasks or family.new))[: 1 if chosen.quick else None]
        rows = [row for seed in chosen.seeds for task in tasks for row in rows_of(chosen, family, task, seed, faster)]
        means, refused = summary(rows, tasks), [row for row in rows if "refused" in row]
        report(family, means, refused)
        found[name] = {"tasks": tasks, "train_rows": family.train_rows, "test_rows": family.test_rows}
        found[name]["left_out"] = [method for method in METHODS if method not in chosen.methods]
        found[name] |= {"means": means, "rows": rows, "verdicts": verdicts(means)}
    chosen.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
