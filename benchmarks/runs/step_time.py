"""CPU time of one optimizer step, two loops in turns in one process: TaskIT's and a bare one; 60 % and everywhere.

Two at a time, so that each always follows the other: a larger step before it leaves colder caches.
"""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.runs.digits import few_digits
from taskit.backbone.heads import head_names
from taskit.backbone.loading import load_model
from taskit.backbone.processors import make_collator
from taskit.data import load
from taskit.planning.plan import Plan
from taskit.planning.planner import make_plan, uniform_plan
from taskit.planning.recipe import Recipe
from taskit.step.lora import adapt
from taskit.step.step import make_optimizer
from taskit.training.loop import MEASURED_STEPS
from taskit.training.run_folder import Event
from taskit.training.trainer import train

BACKBONE = "vit-mini-tiny32"
ALLOWED = 1.05


def step_time(scratch: Path, seed: int, epochs: int) -> dict:
    data = few_digits(scratch / "digits", per_class=40)
    recipe = Recipe(epochs=epochs, batch_size=16, gradient_checkpointing=False)  # as the bare loop
    planned = make_plan(data, BACKBONE, "60%", recipe=recipe, seed=seed)
    everywhere = uniform_plan(data, BACKBONE, 8, recipe=recipe, seed=seed)
    own, bare = beside_a_bare_loop(planned, scratch / "run")
    sparse, full = in_turns(bare_loop(planned), bare_loop(everywhere), len(own))
    against_bare, against_everywhere = median_ratio(own, bare), median_ratio(sparse, full)
    times = {"taskit": own, "bare": bare, "bare at 60 %": sparse, "bare everywhere": full}
    typical = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in typical.items():
        print(f"{name:16} {1000 * seconds:8.2f} ms a step", flush=True)
    print(
        f"against the bare loop {against_bare:.3f}; 60 % against LoRA everywhere {against_everywhere:.3f}", flush=True
    )
    return {
        "cpu_seconds_median": typical,
        "pairs": len(own),
        "against_bare_loop": against_bare,
        "against_lora_everywhere": against_everywhere,
        "holds": against_bare <= ALLOWED and against_everywhere < 1,
    }


def beside_a_bare_loop(planned: Plan, run: Path) -> tuple[list[float], list[float]]:
    """CPU seconds of TaskIT's steps and of a bare loop's, which take turns.

    A step of TaskIT lasts from the end of one watcher's call to the beginning of the next, whatever happens
    between: loader, events, schedule.  Steps whose memory it counts are left out.
    """
    bare = bare_loop(planned)
    own, others = [], []
    since: list[float] = []  # when TaskIT went on, empty where something else than a step lay between

    def watch(event: Event) -> None:
        now = time.process_time()
        if event.kind != "step" or event.step <= MEASURED_STEPS:
            since.clear()
            return
        if since:
            own.append(now - since[0])
            others.append(next(bare))
        since[:] = [time.process_time()]

    train(planned, run, watch=watch)
    return own, others


def in_turns(one: Iterator[float], other: Iterator[float], turns: int) -> tuple[list[float], list[float]]:
    pairs = [(next(one), next(other)) for _ in range(turns)]
    return [first for first, _ in pairs], [second for _, second in pairs]


def bare_loop(plan: Plan) -> Iterator[float]:
    """What a PyTorch user would write, on the same rows in batches of the same size; CPU seconds of every step."""
    torch.manual_seed(plan.seed)
    rows = load(plan.data.source, columns=dict(plan.data.columns), seed=plan.seed).train
    model = load_model(plan.backbone, task=plan.data.task, labels=plan.data.labels)
    model = adapt(model, plan.ranks, head_names(model, plan.data.task), plan.data.task)
    trained = [p for p in model.parameters() if p.requires_grad]
    rate = plan.training.rate(plan.ranks.values())
    optimizer = make_optimizer("adamw", trained, rate, plan.training.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    collator = make_collator(plan.backbone, plan.data.task, None)
    model.train()
    while True:
        loader = DataLoader(
            rows, batch_size=plan.training.batch_size, shuffle=True, drop_last=True, collate_fn=collator
        )
        batches = iter(loader)
        for _ in range(len(loader)):
            began = time.process_time()
            loss = model(**next(batches)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            loss.item()
            yield time.process_time() - began


def median_ratio(ones: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))
