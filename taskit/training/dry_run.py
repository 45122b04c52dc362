"""The dry run before the first step: the longest batch in whole steps and an evaluation, within the plan's peak."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from taskit.errors import BudgetError
from taskit.planning.plan import Plan
from taskit.step.step import Loss, train_step
from taskit.terminal import show_bytes
from taskit.training.distributed import average_gradients

Batch = Mapping[str, torch.Tensor]
TOLERANCE = 1.03  # measured over predicted, the bar of benchmarks/peaks.py


class MisfitError(BudgetError):
    """The first whole step needs more memory than the plan allows."""


def dry_run(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    longest: Callable[[], list[Batch]],
    passes: int,
    held_out: Callable[[], Batch],
    loss: Loss,
    evaluate: Callable[[Batch], object],
) -> None:
    """Two steps, since the optimizer's state exists from the second on, and an evaluation.

    ``longest`` makes the micro-batches of two steps, since Accelerate's loader holds those of the next one already;
    the first ``passes`` of them pass through the model.  The caller throws ``optimizer`` away and puts the weights
    back.

    Raises:
        MisfitError: the device has no more memory.
    """
    try:
        micro_batches = longest()
        model.train()
        for _ in range(2):
            train_step(model, optimizer, micro_batches[:passes], average_gradients, loss=loss)
        del micro_batches
        model.eval()
        with torch.no_grad():
            evaluate(held_out())
    except torch.OutOfMemoryError as error:
        raise MisfitError(
            "The longest batch does not fit the device; plan with a smaller --micro-batch, or train with --tighten."
        ) from error


def require_fit(plan: Plan, peak: int) -> None:
    """Raises MisfitError when the measured ``peak``, in bytes, lies above what was planned for."""
    allowed = max(plan.budget_bytes, int(TOLERANCE * plan.memory.peak_bytes))
    if peak > allowed:
        raise MisfitError(
            f"The longest batch needs {show_bytes(peak)}, {peak - allowed} bytes more than the plan's "
            f"{show_bytes(allowed)}; plan again with a smaller --micro-batch, or train with --tighten."
        )


def tightened(plan: Plan) -> Plan:
    """The plan with a smaller micro-batch and as many rows a step: the same mathematics in less memory.

    Raises:
        BudgetError: a single row passes through the model already.
    """
    size = plan.training.micro_batch or plan.training.batch_size
    if size == 1:
        raise BudgetError("Not even one row at a time fits the budget; raise it, or give a smaller --max-length.")
    return replace(plan, training=plan.training.passing(-(-size // 2)), savings=())
