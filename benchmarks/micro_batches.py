"""Claim: micro-batches of any size train what the whole batch trains, in one process and over two.

    python -m benchmarks.micro_batches [--data FOLDER] [--seeds 0 1 2] [--quick] [--out FILE]

A small random Bert that classifies and a small random Llama that writes, LoRA r = 8 everywhere, 20 optimizer steps on
texts of different lengths: runs of plans that differ in nothing but the rows that pass at once, 32 of them, 2 x 16,
4 x 8, 8 x 4 or the ragged 11 + 11 + 10.  The losses of all steps and the weights after the last are compared with
those of 32 rows at once.  Two processes of 32 rows each, under torchrun, are compared with one process that passes
their 64 rows at once: it knows nothing of shares, so that it says what the loss of all their tokens is.

All that in double precision, where rounding cannot hide an error or make one up.  In single precision the same runs,
and where FOLDER holds trec_question_train.csv, MiniLM on it, say what the other order of sums comes to: AdamW divides
a gradient by its size, so that the smallest ones, which are rounding for the most part, move a weight like any other;
and the linear head that a classifier begins with is fitted to features that are rounded otherwise.
"""

import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from benchmarks.common import Results, Row, options
from taskit.backbone.processors import make_collator
from taskit.planning.plan import Plan
from taskit.planning.planner import uniform_plan
from taskit.planning.recipe import Recipe
from taskit.step.targets import target_count
from taskit.training.batches import Batches, load_data
from taskit.training.checkpoint import WEIGHTS, find_checkpoints
from taskit.training.run_folder import RunFolder
from taskit.training.trainer import train
from tests.world import FILLERS, TOPICS, write_bert, write_llama

ROWS, STEPS, RANK, RATE = 32, 20, 8, 5e-3
SIZES = (16, 8, 4, 11)
BAR = 1e-5
MODELS = {"classification": write_bert, "generation": write_llama}
TEXT, MINILM, REAL = "trec_question", "sentence-transformers/all-MiniLM-L6-v2", "MiniLM, TREC"
Trained = tuple[list[float], dict[str, torch.Tensor]]
# of the file, so that 20 steps of 32 or of 64 rows are left when those that evaluate and validate are set aside
LINES = {("classification", 32): 890, ("generation", 32): 889, ("classification", 64): 1778, ("generation", 64): 1778}
LINES[REAL, 32] = 888


def write_rows(path: Path, model: str, count: int, seed: int) -> Path:
    """Texts of 3 to 27 words about a topic; or prompts of 3 to 13 words with completions of 1 to 12."""
    choose = random.Random(seed)
    lines = []
    for number in range(count):
        topic = sorted(TOPICS)[number % 2]

        def words(most: int, topic: str = topic) -> str:
            return " ".join(choose.choices([*FILLERS, *TOPICS[topic].split()], k=choose.randint(1, most)))

        if model == "generation":
            lines.append(f'{{"prompt": "{words(11)} {number}", "completion": "{words(12)}"}}\n')
        else:
            lines.append(f"{words(25)} {number},{topic}\n")
    head = "" if model == "generation" else "text,label\n"
    path.write_text(head + "".join(lines), encoding="utf-8")
    return path


def plan_of(folder: Path, model: str, rows: int, seed: int) -> Plan:
    """LoRA of one rank everywhere, 20 steps of ``rows`` rows, all at once."""
    suffix = "jsonl" if model == "generation" else "csv"
    source = write_rows(folder / f"rows-{rows}.{suffix}", model, LINES[model, rows], seed)
    backbone = folder / model
    if not backbone.exists():
        MODELS[model](backbone)
    recipe = Recipe(epochs=1, batch_size=rows, learning_rate=RATE)
    return uniform_plan(source, str(backbone), RANK, recipe=recipe, seed=seed)


def trained(plan: Plan, folder: Path, processes: int = 1) -> Trained:
    """The loss of every step, and the weights after the last one."""
    if processes == 1:
        train(plan, folder)
    else:
        launch(plan, folder, processes)
    run = RunFolder(folder)
    losses = [event.loss for event in run.read_events() if event.loss is not None]
    return losses, load_file(find_checkpoints(run.checkpoints)[-1] / WEIGHTS)


def launch(plan: Plan, folder: Path, processes: int) -> None:
    """Train under torchrun, one thread a process."""
    path = folder.with_suffix(".json")
    plan.save(path)
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--standalone"]
    words += ["-m", "taskit", "train", str(path), "--out", str(folder), "--json"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run(words, env=environment, check=True, capture_output=True)


def differences(found: Trained, expected: Trained) -> Row:
    """The largest of all steps' losses and of all weights."""
    (losses, weights), (true_losses, true_weights) = found, expected
    assert weights.keys() == true_weights.keys()
    loss = max(abs(a - b) for a, b in zip(losses, true_losses, strict=True))
    weight = max((weights[name] - true).abs().max().item() for name, true in true_weights.items())
    row = {"steps": len(losses), "first_loss": true_losses[0], "last_loss": true_losses[-1]}
    return row | {"loss": loss, "weight": weight, "holds": max(loss, weight) <= BAR and len(losses) == STEPS}


class World:
    """Plans and their references, made once each."""

    def __init__(self, folder: Path, data: Path | None) -> None:
        self.folder, self.data = folder, data
        self.plan, self.whole = cache(self._plan), cache(self._whole)

    def _plan(self, model: str, dtype: str, rows: int, seed: int) -> Plan:
        if model == REAL:
            assert self.data
            source = self.folder / "questions.csv"
            frame = pandas.read_csv(self.data / f"{TEXT}_train.csv", nrows=LINES[model, rows], keep_default_na=False)
            frame.to_csv(source, index=False)
            return uniform_plan(source, MINILM, RANK, recipe=Recipe(epochs=1, batch_size=rows), seed=seed)
        folder = self.folder / f"{model}-{seed}"
        folder.mkdir(exist_ok=True)
        plan = plan_of(folder, model, rows, seed)
        wide = replace(plan.backbone, dtype=dtype)  # which takes twice the bytes that were priced
        return replace(plan, backbone=wide, budget_bytes=4 * plan.budget_bytes)

    def _whole(self, *key: Any) -> Trained:
        return trained(self.plan(*key), self.folder / "-".join(["whole", *map(str, key)]))

    def one_process(self, model: str, dtype: str, size: int, seed: int) -> Row:
        """``size`` rows at once beside 32 at once."""
        plan = self.plan(model, dtype, ROWS, seed)
        smaller = replace(plan, training=plan.training.passing(size))
        found = trained(smaller, self.folder / f"one-{model}-{dtype}-{size}-{seed}")
        return differences(found, self.whole(model, dtype, ROWS, seed))

    def rounding(self, **key: Any) -> Row:
        """The same in single precision, where it is no bar."""
        row = self.one_process(**key)
        return {**{name: value for name, value in row.items() if name != "holds"}, "within": row["holds"]}

    def two_processes(self, model: str, dtype: str, size: int, seed: int) -> Row:
        """``size`` rows at once in each of two processes beside the 64 of both at once."""
        plan = self.plan(model, dtype, 2 * ROWS, seed)
        recipe = replace(plan.training, batch_size=ROWS, micro_batch=size, gradient_accumulation=None)
        found = trained(replace(plan, training=recipe), self.folder / f"two-{model}-{size}-{seed}", 2)
        row = differences(found, self.whole(model, dtype, 2 * ROWS, seed))
        return row | {"targets": self.targets(plan, recipe)}

    def targets(self, plan: Plan, recipe: Recipe) -> list[tuple[int, int]]:
        """Of both processes in every step."""
        rows, _ = load_data(plan).validated(plan.seed)
        collator = make_collator(plan.backbone, plan.data.task, recipe.max_length)
        batches = Batches(collator, recipe, Accelerator(), plan.seed)
        counts = [sum(target_count(one, False) for one in step) for step in batches.steps(rows, 1)]
        return list(zip(counts[::2], counts[1::2], strict=True))


def main() -> None:
    quick, data = "one size, in one process", f"{TEXT}_train.csv, for the runs of MiniLM"
    parser = options("micro_batches", __doc__, quick=quick, data=data, seeds=(0, 1, 2))
    chosen = parser.parse_args()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.set_num_threads(1)
    results = Results(parser, chosen)
    sizes = SIZES[-1:] if chosen.quick else SIZES
    seeded = [{"model": model, "dtype": "float64", "seed": seed} for seed in chosen.seeds for model in MODELS]
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), chosen.data)
        keys = [key | {"size": size} for key in seeded for size in sizes]
        results.rows("one_process", keys, world.one_process)
        if not chosen.quick:
            pairs = [key | {"size": size} for key in seeded[: len(MODELS)] for size in (ROWS, *SIZES)]
            results.rows("two_processes", pairs, world.two_processes)
        single = [key | {"dtype": "float32"} for key in keys]
        if chosen.data and not chosen.quick:
            single += [{"model": REAL, "dtype": "float32", "seed": chosen.seeds[0], "size": size} for size in sizes]
        results.rows("rounding", single, world.rounding)
    results.end()


if __name__ == "__main__":
    main()
