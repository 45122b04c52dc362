"""Claim: to plan takes at most 2 % of the training, and no more memory with twenty learned tasks than with one.

    python -m benchmarks.planning --data FOLDER [--tasks NAME…] [--seeds 0] [--quick] [--out FILE]

Every new text task is planned with the learned tasks that come with the backbone, but for itself, and the processor
time is counted of all that comes before training: reading and tracing, the comparison with the zoo (backbone, head,
trial, learned tasks, importance) and the plan (schedule and rehearsals).  The training beside it is ten epochs of the
plan on 4,000 rows, as many as the text tasks have; an epoch of fewer rows is timed, and one of the plan that may not
recompute blocks.  So is LoRA r = 8 everywhere, which keeps its activations: three epochs of it also say how similar
the tasks really are, so that the usual comparison stands beside one of twice its rows.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracies.suite import zoo_without
from benchmarks.accuracies.ways import as_it_is
from benchmarks.common import Results, options
from benchmarks.methods import recipe_of
from benchmarks.transferring.bench import Bench
from benchmarks.transferring.families import Family, draw, families
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.methods import TASKIT
from taskit.planning import prepared_task as compared
from taskit.planning.budget import parse_budget
from taskit.planning.context import PlanningContext, resolve
from taskit.planning.planner import decide
from taskit.planning.prepared_task import ComparedTask, PreparedTask, compare_with_zoo, prepare_task
from taskit.step.recompute import use_checkpointing
from taskit.transfer import trial
from taskit.transfer.measure import measure_with_trial
from taskit.transfer.similarity import displacement
from taskit.zoo.adapter import read_config, read_tensors
from taskit.zoo.lora_branch import attached, current_name, linear_shapes
from taskit.zoo.zoo import BUNDLED

EPOCHS, ALL_ROWS, MANY, BUDGET = 10, 4000, 20, "60%"
SIZES = {"usual": 1, "double": 2}  # rows of the comparison
SHARE, GROWTH = 0.02, 0.03  # the bars
QUICK = {"train_rows": 160, "test_rows": 40, "epochs": 1}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(processor seconds of this process, result)."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


@contextmanager
def sized(factor: int) -> Iterator[None]:
    """Surveys with ``factor`` times the rows: of the probe, of the head, and of every step of the trial."""
    rows = {"PROBE_ROWS": factor * compared.PROBE_ROWS, "ROWS": factor * compared.ROWS}
    with mock.patch.multiple(compared, **rows), mock.patch.object(trial, "ROWS", factor * trial.ROWS):
        yield


def task_row(data: Path, family: Family, task: str, seed: int, scratch: Path) -> dict[str, Any]:
    """What planning ``task`` takes, beside its training."""
    source = draw(data, task, (family.train_rows, family.test_rows), seed, scratch / task)
    zoo = zoo_without(BUNDLED / family.backbone.rpartition("/")[2], task, None, seed, scratch / "zoo")
    bench = Bench.open(family, source, seed)
    seconds, model = timed(lambda: bench.train(bench.full()))
    model.save_pretrained(scratch / "own", save_embedding_layers=False)
    training = seconds * EPOCHS * ALL_ROWS / (family.epochs * len(bench.train_rows))
    recipe = replace(recipe_of(family), gradient_checkpointing=None, micro_batch=None, gradient_accumulation=None)
    tracing, prepared = timed(lambda: prepare_task(source, family.backbone, recipe, seed=seed))
    row = {"learned_tasks": len(list(zoo.iterdir())), "trace_seconds": tracing, "training_seconds": training}
    for name, factor in SIZES.items():
        with sized(factor):
            context, found = survey_row(prepared, zoo, scratch / "own")
        row |= {f"{name}_{what}": value for what, value in found.items()}
        if name == "usual":
            row |= epochs(bench, context) | {"full_epoch_seconds": seconds / family.epochs}
    planning = tracing + row["usual_survey_seconds"] + row["usual_plan_seconds"]
    planned = training * row["plan_epoch_seconds"] / row["full_epoch_seconds"]
    row |= memory(prepared, zoo) | {"planned_seconds": planned, "share": planning / planned}
    row["share_of_everywhere"] = planning / training
    return row | {"holds": row["growth"] <= GROWTH}  # the share has its bar on the mean over tasks


def epochs(bench: Bench, context: PlanningContext) -> dict[str, Any]:
    """Processor seconds of an epoch of the plan, and of the one that keeps all activations."""
    row: dict[str, Any] = {}
    keeping = replace(context, steps=tuple(replace(one, profile=one.profile.recomputing(()), block_time=()) for one in
                                           context.steps))  # fmt: skip
    for name, one in {"plan": context, "keeping": keeping}.items():
        plan = decide(one, parse_budget(BUDGET))
        recomputes = bool(plan.training.gradient_checkpointing)
        started = partial(use_checkpointing, blocks=plan.training.recomputed_blocks) if recomputes else as_it_is
        ranks = {location: rank for location, rank in plan.ranks.items() if rank}
        seconds, _ = timed(partial(bench.train, ranks, epochs=1, started=started))
        row |= {f"{name}_recomputes": recomputes, f"{name}_epoch_seconds": seconds}
    return row


def survey_row(prepared: PreparedTask, zoo: Path, own: Path) -> tuple[PlanningContext, dict[str, Any]]:
    """Processor seconds of comparing with the zoo and of planning; what is predicted, and what ``own`` shows."""
    start = time.process_time()
    with compare_with_zoo(prepared, zoo=zoo) as seen:
        context = resolve(seen, TASKIT, {})
        surveying = time.process_time() - start
        true = [cosine(seen, own, task.folder) for task in seen.zoo.tasks]
    planning, _ = timed(lambda: decide(context, parse_budget(BUDGET)))
    return context, {
        "survey_seconds": surveying,
        "plan_seconds": planning,
        "predicted": [one.phi for one in context.similarity],
        "true": true,
        "importance": list(context.importance),
    }


def cosine(seen: ComparedTask, own: Path, learned: str) -> float:
    """True similarity: the mean cosine of where the trained adapter and the learned one move the probe's features."""
    one, other = (moved(seen, folder) for folder in (own, learned))
    return float((one * other).sum(1).mean())


def moved(seen: ComparedTask, folder: str | Path) -> Tensor:
    """Directions (n, d) in which the adapter in ``folder`` moves the features of the probe."""
    model = seen.probe_context.model
    branches = read_tensors(folder, read_config(folder), linear_shapes(model), current_name(model))
    with attached(model, branches):
        return torch.cat(
            [displacement(probe.x, seen.probe_context.read(probe.inputs)) for probe in seen.probe_context.probes]
        )


def memory(prepared: PreparedTask, zoo: Path) -> dict[str, Any]:
    """Most bytes of live storages, the frozen model's included, with one learned task and with twenty."""
    peaks = []
    for count in (1, MANY):
        with compare_with_zoo(prepared, zoo=zoo) as seen:
            tasks = (seen.zoo.tasks * MANY)[:count]
            live = LiveStorages()
            with live:
                live.follow(standing_tensors(seen.probe_context.model))
                measure_with_trial(seen.probe_context, tasks, seen.similarity, seen.importance)
        peaks.append(live.peak)
    return {"peak_bytes_one": peaks[0], "peak_bytes_twenty": peaks[1], "growth": peaks[1] / peaks[0] - 1}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over tasks, and how well predicted and true similarity agree for both sizes."""
    share = statistics.fmean(row["share"] for row in rows)
    longer = {
        name: statistics.fmean(row[f"{name}_epoch_seconds"] / row["full_epoch_seconds"] for row in rows)
        for name in ("plan", "keeping")
    }
    found: dict[str, Any] = {
        "epochs_by_full": longer,
        "share_of_everywhere": statistics.fmean(row["share_of_everywhere"] for row in rows),
        "share": share,
        "bar": SHARE,
        "growth": max(row["growth"] for row in rows),
    }
    for name in SIZES:
        pairs = [(row[f"{name}_predicted"], row[f"{name}_true"]) for row in rows]
        within = statistics.fmean(float(np.corrcoef(*pair)[0, 1]) for pair in pairs)
        pooled = float(np.corrcoef(*(np.concatenate(side) for side in zip(*pairs, strict=True)))[0, 1])
        seconds = statistics.fmean(row[f"{name}_survey_seconds"] for row in rows)
        found[name] = {"within": within, "pearson": pooled, "survey_seconds": seconds}
    return found


def main() -> None:
    quick, data = "one task, few rows, one epoch", "TASK_train.csv"
    parser = options("planning", __doc__, quick=quick, data=data, required=True, seeds=(0,))
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="only these of the new text tasks")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    family = families(chosen.data)["text"]
    family = replace(family, **QUICK) if chosen.quick else family
    tasks = [task for task in family.new if task in (chosen.tasks or family.new)][: 1 if chosen.quick else None]
    keys = [{"task": task, "seed": seed} for seed in chosen.seeds for task in tasks]
    results = Results(parser, chosen, rows=family.train_rows)

    def measure(task: str, seed: int) -> dict[str, Any]:
        with TemporaryDirectory() as scratch:
            return task_row(chosen.data, family, task, seed, Path(scratch))

    found = summary(results.rows("tasks", keys, measure))
    results.put(summary=found | {"holds": found["share"] <= SHARE})
    for name in ("share", "growth"):
        print(f"{name}: {100 * found[name]:.2f} %")
    for name in SIZES:
        print(name, ", ".join(f"{what} {value:.2f}" for what, value in found[name].items()))
    results.end()


if __name__ == "__main__":
    main()
