"""The time and the price of a run on a rented machine, estimated before anything is paid."""

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from huggingface_hub import HfApi
from torch.utils.flop_counter import FlopCounterMode

from taskit.backbone.processors import make_collator
from taskit.data import Dataset
from taskit.errors import BudgetError
from taskit.jobs.machine import Machine, find_machine
from taskit.memory.known import KnownInputs
from taskit.memory.rehearsal import fill_with_zeros
from taskit.memory.simulated_device import simulated_device
from taskit.planning.plan import Plan
from taskit.planning.recipe import Recipe
from taskit.planning.repricing import step_spec_of
from taskit.planning.step_spec import StepSpec
from taskit.step.recompute import named_blocks
from taskit.terminal import show_bytes

# Floating-point operations a second that small batches in float32 reach, low on purpose: a T4 could do 8.1e12.
GPU_SPEED, CORE_SPEED = 2e12, 5e9
BACKWARD = 2  # times the forward pass, at most: frozen weights need almost no gradient products
EVALUATIONS = 1.3  # validation and the evaluation before and after, beside the steps
SETUP_SECONDS = 600  # image, packages, weights
MARGIN = 2  # of the timeout over the estimate


@dataclass(frozen=True, slots=True)
class Quote:
    """``seconds`` is the estimate, setup included; after ``timeout_seconds`` the service ends the Job."""

    machine: Machine
    seconds: int
    timeout_seconds: int

    @property
    def dollars(self) -> float:
        return self.seconds * self.machine.dollars_per_second

    @property
    def most_dollars(self) -> float:
        return self.timeout_seconds * self.machine.dollars_per_second


def make_quote(plan: Plan, flavor: str, api: HfApi, *, tighten: bool = False) -> Quote:
    """Estimate time and price of ``plan`` on the machine ``flavor``.

    Raises:
        HubError: there is no such machine.
        RunError: the data has changed since the plan was made.
        BudgetError: the plan does not fit that machine's kind of device, and may not be tightened; or it does not
            fit that machine at all.
    """
    from taskit.training.batches import load_data  # here: it loads Accelerate, which the app starts without

    machine = find_machine(api, flavor)
    collator = make_collator(plan.backbone, plan.data.task, plan.training.max_length)
    data = load_data(plan).learnable(collator)
    step_spec = step_spec_of(plan, data, collator)
    step_spec = replace(step_spec, conditions=replace(step_spec.conditions, device=machine.device))
    peak = step_spec.rehearse([plan.ranks.get(location.name, 0) for location in step_spec.locations])
    if peak > plan.budget_bytes and not tighten:
        raise BudgetError(
            f"On {flavor} the plan needs {show_bytes(peak)}, {peak - plan.budget_bytes} bytes more than its budget; "
            "raise budget_bytes in the plan, or say --tighten."
        )
    needed = min(peak, plan.budget_bytes)  # a tightened plan keeps its budget
    if 0 < machine.memory_bytes < needed:
        raise BudgetError(
            f"{flavor} has {show_bytes(machine.memory_bytes)} for the {show_bytes(needed)} of this plan; choose a "
            "larger machine, or plan with a smaller budget."
        )
    passes = 1 + BACKWARD + _recomputed_share(plan, step_spec)
    work = passes * EVALUATIONS * forward_operations(step_spec) * micro_batches(plan.training, data)
    speed = GPU_SPEED if machine.device == "cuda" else CORE_SPEED * machine.cores
    seconds = SETUP_SECONDS + math.ceil(work / speed)
    return Quote(machine, seconds, MARGIN * seconds)


def micro_batches(recipe: Recipe, data: Dataset) -> int:
    """How many micro-batches pass through the model in all epochs."""
    return recipe.epochs * math.ceil(len(data.train) / recipe.batch_size) * (recipe.gradient_accumulation or 1)


def _recomputed_share(plan: Plan, step_spec: StepSpec) -> float:
    """How much of a forward pass the backward pass takes again."""
    if not plan.training.gradient_checkpointing:
        return 0.0
    blocks = plan.training.recomputed_blocks
    return 1.0 if blocks is None else len(blocks) / len(named_blocks(step_spec.build()))


def forward_operations(step_spec: StepSpec) -> int:
    """Floating-point operations of the longest batch's forward pass, counted without weights where possible.

    Only products with weights are counted; those inside attention, fewer up to thousands of tokens, are left to the
    margin.
    """
    conditions, model = step_spec.conditions, step_spec.build()
    known = bool(conditions.batch.known)
    try:
        with simulated_device("cpu", known), KnownInputs() if known else nullcontext():
            return _count(model, conditions.batch.empty())
    except RuntimeError:  # the model reads values: count one row of real tensors
        fill_with_zeros(model)
        return conditions.batch.rows * _count(model, conditions.batch.with_rows(1).empty())


def _count(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**batch)
    return counter.get_total_flops()
