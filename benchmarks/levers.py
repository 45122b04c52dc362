"""Claim: a plan at 60 % or at 20 % of the scale takes at most 1.05 times as long as LoRA r = 8 everywhere.

    python -m benchmarks.levers --data FOLDER [--seeds 0] [--quick] [--out FILE]

levers: processor time of one optimizer step of MiniLM over the same 32 rows, one thread, LoRA r = 8 everywhere, in
micro-batches, with blocks recomputed, and at other ranks, over that of all rows at once; beside it what
taskit/planning/step_time.py says, by which the exact levers are ordered.  The rows are questions of TREC, and texts
of 48 tokens made of them.  Everything is timed in turn, several times; the least counts.
epochs: TREC on MiniLM and the demo's digits on the bundled ViT, planned for 60 % and for 20 % of the scale by the
planner; their optimizer steps of 32 rows and those of LoRA r = 8 everywhere, all rows at once, take turns on the
same rows.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import torch
from accelerate import Accelerator

from benchmarks.accuracies.suite import zoo_without
from benchmarks.common import Results, Row, options
from taskit.backbone.heads import head_names
from taskit.backbone.loading import load_model
from taskit.backbone.processors import make_collator
from taskit.data import load, write_digits
from taskit.memory.conditions import BatchShape
from taskit.planning.budget import parse_budget
from taskit.planning.context import prepare
from taskit.planning.plan import Plan
from taskit.planning.planner import decide, uniform_plan
from taskit.planning.recipe import Recipe
from taskit.planning.step_time import block_time, pass_time
from taskit.step.lora import adapt
from taskit.step.loss import loss_of
from taskit.step.recompute import named_blocks, use_checkpointing
from taskit.step.step import make_optimizer, train_step
from taskit.step.targets import target_shares
from taskit.training.batches import Batch, Batches, load_data
from taskit.zoo.zoo import BUNDLED

ROWS, RANK, TOKENS, JOINED = 32, 8, 48, 5
SIZES, AGAIN, RANKS = (16, 11, 8, 4, 2, 1), (2, 3, 6), (1, 2, 16, 64)
BUDGETS, BAR = ("60%", "20%"), 1.05
TEXT, MINILM, VIT = "trec_question", "sentence-transformers/all-MiniLM-L6-v2", "vit-mini-tiny32"


@dataclass(frozen=True, slots=True)
class Timed:
    """An adapted model and its optimizer; ``step`` takes one optimizer step."""

    model: Any
    optimizer: torch.optim.Optimizer
    recipe: Recipe

    @classmethod
    def of(cls, plan: Plan) -> "Timed":
        task = plan.data.task
        backbone = load_model(plan.backbone, task=task, labels=plan.data.labels)
        model = adapt(backbone, plan.ranks, head_names(backbone, task), task).train()
        if plan.training.gradient_checkpointing:
            use_checkpointing(model, plan.training.recomputed_blocks)
        trained = [p for p in model.parameters() if p.requires_grad]
        return cls(model, make_optimizer(plan.training.optimizer, trained, 1e-4, 0.0), plan.training)

    def step(self, micro_batches: Sequence[Batch]) -> float:
        """Processor seconds of one step."""
        shares = target_shares(micro_batches, self.model.config.is_encoder_decoder)
        loss = partial(loss_of, self.model, chunk=self.recipe.loss_chunk)
        began = time.process_time()
        train_step(self.model, self.optimizer, micro_batches, shares=shares, loss=loss)
        return time.process_time() - began


def least_in_turn(ways: Mapping[str, tuple[Timed, Sequence[Batch]]], rounds: int) -> dict[str, float]:
    """Of each way's steps, one of which warms up."""
    found: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, (timed, micro_batches) in ways.items():
            seconds = timed.step(micro_batches)
            if number:
                found[name] = min(seconds, found.get(name, seconds))
    return found


def question_file(data: Path, folder: Path, joined: int = 1) -> Path:
    """The questions as they are, or so many of them to a row, which has the label of the first."""
    frame = pandas.read_csv(data / f"{TEXT}_train.csv", keep_default_na=False)
    texts, labels = list(frame["text"]), list(frame["label"])
    starts = range(0, len(frame) - joined + 1, joined)
    rows = [{"text": " ".join(texts[start : start + joined]), "label": labels[start]} for start in starts]
    path = folder / f"{TEXT}-{joined}.csv"
    pandas.DataFrame(rows).to_csv(path, index=False)
    return path


def levers(data: Path, joined: int, rounds: int, seed: int) -> Row:
    """Seconds of every way to take one step over the same rows, and the time relative to the whole batch's."""
    recipe = Recipe(epochs=1, batch_size=ROWS, max_length=TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        plan = uniform_plan(question_file(data, Path(folder), joined), MINILM, RANK, recipe=recipe, seed=seed)
        train_rows, _ = load_data(plan).validated(seed)
    collator = make_collator(plan.backbone, plan.data.task, TOKENS)
    rows = [dict(row) for row in train_rows.shuffle(seed=seed).select(range(ROWS))]
    whole = Timed.of(plan)
    names = list(named_blocks(whole.model))
    batches = {size: collator.micro_batches(rows, size) for size in (ROWS, *SIZES)}
    ways = {f"{size} rows at once": (whole, batches[size]) for size in batches}
    ways |= {
        f"{count} of {len(names)} blocks recomputed": (Timed.of(with_blocks(plan, names[-count:])), batches[ROWS])
        for count in AGAIN
    }
    ways |= {f"rank {rank}": (Timed.of(with_ranks(plan, rank)), batches[ROWS]) for rank in RANKS}
    seconds = least_in_turn(ways, rounds)
    usual = pass_time(BatchShape.of(batches[ROWS][0]))
    foretold: dict[str, float | None] = dict.fromkeys(ways)
    for size, made in batches.items():
        foretold[f"{size} rows at once"] = pass_time(BatchShape.of(made[0])) / usual
    for count in AGAIN:
        foretold[f"{count} of {len(names)} blocks recomputed"] = 1 + count * block_time(len(names)) / usual
    base = seconds[f"{ROWS} rows at once"]
    found = [
        {"way": way, "seconds": taken, "ratio": taken / base, "foretold": foretold[way]}
        for way, taken in seconds.items()
    ]
    return {"tokens": batches[ROWS][0]["input_ids"].shape[1], "ways": found}


def with_ranks(plan: Plan, rank: int) -> Plan:
    return replace(plan, locations=tuple(replace(place, rank=rank) for place in plan.locations))


def with_blocks(plan: Plan, blocks: Sequence[str]) -> Plan:
    recipe = replace(plan.training, gradient_checkpointing=bool(blocks), recomputed_blocks=tuple(blocks))
    return replace(plan, training=recipe)


def epochs(data: Path, task: str, seed: int, steps: int, rounds: int) -> Row:
    """Seconds of the same optimizer steps by the plan of each budget, and by LoRA r = 8 everywhere."""
    backbone = MINILM if task == TEXT else VIT
    recipe = Recipe(epochs=1, batch_size=ROWS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = question_file(data, folder) if task == TEXT else write_digits(folder / task)
        zoo = zoo_without(BUNDLED / backbone.rpartition("/")[2], task, None, seed, folder / "zoo")
        context = prepare(source, backbone, recipe=recipe, zoo=zoo, seed=seed)
        plans = {budget: decide(context, parse_budget(budget)) for budget in BUDGETS}
        plans["everywhere"] = uniform_plan(source, backbone, RANK, recipe=recipe, seed=seed)
        made = load(source, seed=seed).validated(seed)[0]
    collator = make_collator(context.backbone, context.data.task, None)
    timed = {name: Timed.of(plan) for name, plan in plans.items()}
    taken = dict.fromkeys(plans, 0.0)
    batches = {name: Batches(collator, plan.training, Accelerator(), seed) for name, plan in plans.items()}
    every = zip(*(batches[name].steps(made, 1) for name in plans), strict=True)
    for number, of_each in enumerate(every):
        if number < steps:
            ways = {name: (timed[name], step) for name, step in zip(plans, of_each, strict=True)}
            for name, seconds in least_in_turn(ways, rounds).items():
                taken[name] += seconds
    found = [plan_row(name, plan, taken[name], taken["everywhere"]) for name, plan in plans.items()]
    return {"steps": min(steps, number + 1), "plans": found}


def plan_row(name: str, plan: Plan, seconds: float, everywhere: float) -> Row:
    recipe, ranks = plan.training, [rank for rank in plan.ranks.values() if rank]
    row = {
        "way": name,
        "micro_batch": recipe.micro_batch,
        "recomputed": len(recipe.recomputed_blocks or ()),
        "inserted": len(ranks),
        "locations": len(plan.ranks),
        "ranks": sorted(set(ranks)),
        "seconds": seconds,
        "ratio": seconds / everywhere,
    }
    return row if name == "everywhere" else row | {"holds": row["ratio"] <= BAR}


def main() -> None:
    quick, data = "two rounds, two steps", f"{TEXT}_train.csv"
    parser = options("levers", __doc__, quick=quick, data=data, required=True, seeds=(0,))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(parser, chosen)
    rounds, steps = (2, 2) if chosen.quick else (6, 20)
    keys = [{"joined": joined, "seed": seed} for seed in chosen.seeds for joined in (1, JOINED)]
    results.rows("levers", keys, lambda joined, seed: levers(chosen.data, joined, rounds, seed))
    tasks = [{"task": task, "seed": seed} for seed in chosen.seeds for task in ("digits", TEXT)]
    results.rows("epochs", tasks, lambda task, seed: epochs(chosen.data, task, seed, steps, min(rounds, 3)))
    results.end()


if __name__ == "__main__":
    main()
