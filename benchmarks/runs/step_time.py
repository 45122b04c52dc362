"""CPU time of one optimizer step, turn by turn in one process: TaskIT's loop, a bare one, and LoRA everywhere."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.runs.digits import few_digits
from taskit.backbone import head_names, load_model
from taskit.data import load
from taskit.plan import Plan
from taskit.planning import make_collator, make_plan, uniform_plan
from taskit.training.fitting import MEASURED_STEPS
from taskit.training.lora import adapt
from taskit.training.recipe import Recipe
from taskit.training.run_folder import Event
from taskit.training.step import make_optimizer
from taskit.training.trainer import train

BACKBONE = "vit-mini-tiny32"
ALLOWED = 1.05


def step_time(scratch: Path, seed: int) -> dict:
    data = few_digits(scratch / "digits", per_class=40)
    recipe = Recipe(epochs=2, batch_size=16)
    planned = make_plan(data, BACKBONE, "60%", recipe=recipe, seed=seed)
    everywhere = uniform_plan(data, BACKBONE, 8, recipe=recipe, seed=seed)
    times = turns(planned, everywhere, scratch / "run")
    against_bare = median_ratio(times["taskit"], times["bare"])
    against_everywhere = median_ratio(times["bare"], times["everywhere"])
    typical = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in typical.items():
        print(f"{name:12} {1000 * seconds:8.2f} ms a step", flush=True)
    print(
        f"against the bare loop {against_bare:.3f}; 60 % against LoRA everywhere {against_everywhere:.3f}", flush=True
    )
    return {
        "cpu_seconds_median": typical,
        "triples": len(times["taskit"]),
        "against_bare_loop": against_bare,
        "against_lora_everywhere": against_everywhere,
        "holds": against_bare <= ALLOWED and against_everywhere < 1,
    }


def turns(planned: Plan, everywhere: Plan, run: Path) -> dict[str, list[float]]:
    """CPU seconds of steps that took turns: after each of TaskIT's own, one of either bare loop.

    A step of TaskIT lasts from the end of one watcher's call to the beginning of the next, whatever happens
    between: loader, events, schedule.  Steps whose memory it counts are left out.
    """
    bare, uniform = bare_loop(planned), bare_loop(everywhere)
    times: dict[str, list[float]] = {"taskit": [], "bare": [], "everywhere": []}
    since: list[float] = []  # when TaskIT went on, empty where something else than a step lay between

    def watch(event: Event) -> None:
        now = time.process_time()
        if event.kind != "step" or event.step <= MEASURED_STEPS:
            since.clear()
            return
        if since:
            times["taskit"].append(now - since[0])
            times["bare"].append(next(bare))
            times["everywhere"].append(next(uniform))
        since[:] = [time.process_time()]

    train(planned, run, watch=watch)
    return times


def bare_loop(plan: Plan) -> Iterator[float]:
    """What a PyTorch user would write, on the same rows in batches of the same size; CPU seconds of every step."""
    torch.manual_seed(plan.seed)
    rows = load(plan.data.source, columns=dict(plan.data.columns), seed=plan.seed).train
    model = load_model(plan.backbone, task=plan.data.task, labels=plan.data.labels)
    model = adapt(model, plan.ranks, head_names(model, plan.data.task), plan.data.task)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer("adamw", trained, plan.training.learning_rate, plan.training.weight_decay)
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
