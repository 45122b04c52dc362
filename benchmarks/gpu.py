"""The bars that need a GPU: the peak against the allocator's own count, and plans under a capped allocator."""

import random
from functools import partial

import torch

from benchmarks.architectures import ARCHITECTURES
from taskit.backbone.heads import head_names
from taskit.backbone.target_modules import find_locations
from taskit.memory.conditions import Conditions
from taskit.memory.device import runtime_bytes
from taskit.memory.profile import MemoryProfile
from taskit.memory.trace import trace
from taskit.planning.planner import search
from taskit.planning.step_spec import StepSpec
from taskit.scheduler import schedule
from taskit.step.lora import adapt
from taskit.step.step import make_optimizer, train_step

NAMES = ("ViT-B/16", "BERT-base", "Llama-1B", "Qwen3-0.6B", "T5-base")


def gpu_row(architecture: str, plans: int, seed: int) -> dict:
    choose = random.Random(f"{seed} {architecture}")
    step_spec, profile = _stage(architecture)
    nothing = step_spec.rehearse((0,) * len(step_spec.locations))
    full = profile.bytes((8,) * len(step_spec.locations))
    floor = profile.bytes((0,) * len(step_spec.locations))
    errors, used, failures = [], [], 0
    total = torch.cuda.get_device_properties(0).total_memory
    for _ in range(plans):
        budget = nothing + int(choose.uniform(0.1, 1.0) * (full - nothing))
        importance = [choose.random() for _ in step_spec.locations]
        solve = partial(schedule, profile, importance)
        found, predicted = search(lambda one: step_spec.rehearse(one.ranks), solve, budget, floor)
        torch.cuda.set_per_process_memory_fraction(budget / total)
        try:
            measured = _train(architecture, step_spec, found.ranks)
            errors.append(abs(predicted / measured - 1))
            used.append((measured - nothing) / (budget - nothing))
        except torch.OutOfMemoryError:
            failures += 1
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    row: dict = {"plans": plans, "out_of_memory": failures}
    row |= {"mean_error": sum(errors) / max(len(errors), 1), "mean_used": sum(used) / max(len(used), 1)}
    row["holds"] = not failures and row["mean_error"] <= 0.03 and row["mean_used"] >= 0.95
    print(architecture, row, flush=True)
    return row


def _stage(name: str) -> tuple[StepSpec, MemoryProfile]:
    base = ARCHITECTURES[name]
    model = base.build()
    heads = head_names(model, base.task)
    conditions = Conditions(base.batch(), device="cuda", runtime_bytes=runtime_bytes("cuda"))
    step_spec = StepSpec(base.build, find_locations(model), heads, 0, base.task, conditions)
    return step_spec, trace(step_spec.build, step_spec.locations, heads, base.task, conditions)


def _train(name: str, step_spec: StepSpec, ranks: tuple[int, ...]) -> int:
    """Bytes by max_memory_allocated of two real steps."""
    base = ARCHITECTURES[name]
    strategy = {place.name: rank for place, rank in zip(step_spec.locations, ranks, strict=True)}
    model = adapt(type(base.build())(base.build().config).to(base.dtype), strategy, step_spec.heads, base.task).cuda()
    model.train()
    torch.cuda.reset_peak_memory_stats()
    *micro, _ahead = [{k: v.cuda() for k, v in step_spec.conditions.batch.empty().items()} for _ in range(2)]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer("adamw", trained, 1e-4, 0.0)
    for _ in range(2):
        train_step(model, optimizer, micro)
    return torch.cuda.max_memory_allocated()
