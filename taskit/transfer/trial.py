"""The trial: the first steps of the training to come, LoRA everywhere, in the memory of a few rows and one block.

Where a learned task moves the features says little by itself: every training also moves them in directions that all
trainings share.  So the new task is moved as well, by real optimizer steps under the schedule of training, and
displacements are compared with a displacement.  What it has become by then, w_0, is the one adapter that was learned
on the new task itself.  Each step also measures by how much it lowers the loss at each location.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice

import torch
from torch import Tensor
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from taskit.step.recompute import recomputed
from taskit.step.step import CLIP_NORM, make_optimizer, train_step
from taskit.step.targets import target_shares
from taskit.zoo.lora_branch import Branch, attached, linear_shapes

STEPS = 128
RANK = 8
LEARNING_RATE = 2e-3
WARMUP = 8  # steps
SEED = 0
ROWS = 4  # of a step; they pass at once, blocks recomputed: a trial may not need what a budget does not give

Batch = Mapping[str, Tensor]
Loss = Callable[[Batch], Tensor]  # the mean over the rows of a batch, with its graph


@dataclass(frozen=True, slots=True)
class Trial:
    """w_0, a branch by location, and what the steps there took off the loss, to first order.

    ``removed`` is the sum over steps t of -<dL_t / d(A, B), (A, B)_{t+1} - (A, B)_t>.
    """

    branches: Mapping[str, Branch]
    removed: Mapping[str, float]

    def importance(self, locations: Sequence[str]) -> tuple[float, ...]:
        """lambda_0^k of `taskit.transfer.importance` for each of ``locations``; 0 where there is no branch."""
        return tuple(
            math.cbrt(max(self.removed[name], 0.0) * self.branches[name].norm ** 2) if name in self.branches else 0.0
            for name in locations
        )


def run_trial(model: PreTrainedModel, batches: Sequence[Batch], loss: Loss, locations: Sequence[str]) -> Trial:
    """Branches of rank RANK at each of ``locations`` after STEPS optimizer steps.

    The rows of ``batches`` are taken in their order, again and again.  The parameters of ``model`` need no gradient,
    and ``loss`` computes with ``model``.  Deterministic.
    """
    branches = _start(model, locations)
    trained = [matrix for branch in branches.values() for matrix in (branch.a, branch.b)]
    optimizer = make_optimizer("adamw", trained, LEARNING_RATE, 0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP, STEPS)
    removed = {name: torch.zeros(()) for name in branches}

    @contextmanager
    def measured(norm: Tensor) -> Iterator[None]:
        """Add to ``removed`` what the update inside takes off the loss, by the gradients before clipping."""
        before = {name: _along(branch) for name, branch in branches.items()}
        yield
        clipped = max(float(norm) / CLIP_NORM, 1.0)
        for name, branch in branches.items():
            removed[name] = removed[name] + (before[name] - _along(branch)) * clipped

    with recomputed(model), attached(model, branches), torch.enable_grad():
        for parts in islice(_steps(batches), STEPS):
            shares = target_shares(parts, model.config.is_encoder_decoder)
            train_step(model, optimizer, parts, shares=shares, loss=loss, around_update=measured)
            schedule.step()
    tried = {name: Branch(one.a.detach(), one.b.detach(), one.scaling) for name, one in branches.items()}
    return Trial(tried, {name: float(value) for name, value in removed.items()})


def _along(branch: Branch) -> Tensor:
    """<dL / d(A, B), (A, B)> of the gradient that is there: its change by a step needs no copy of either."""
    pairs = [(matrix.grad, matrix.detach()) for matrix in (branch.a, branch.b) if matrix.grad is not None]
    return sum(((slope.double() * matrix.double()).sum() for slope, matrix in pairs), torch.zeros(()))


def _steps(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """ROWS rows at a time, in as few parts as the cut into batches allows."""
    parts: list[Batch] = []
    left = ROWS
    for batch in cycle(batches):
        start, count = 0, len(batch["labels"])
        while start < count:
            stop = min(start + left, count)
            parts.append(batch if count == 1 else {name: tensor[start:stop] for name, tensor in batch.items()})
            left, start = left - (stop - start), stop
            if not left:
                yield parts
                parts, left = [], ROWS


def _start(model: PreTrainedModel, locations: Sequence[str]) -> dict[str, Branch]:
    """LoRA as PEFT starts it: A uniform within 1 / sqrt(in), B = 0."""
    shapes, choose = linear_shapes(model), torch.Generator().manual_seed(SEED)
    branches = {}
    for name in locations:
        inner, outer = shapes[name]
        device = next(model.get_submodule(name).parameters()).device
        a = (2 * torch.rand(RANK, inner, generator=choose) - 1) / inner**0.5
        branches[name] = Branch(
            a.to(device).requires_grad_(), torch.zeros(outer, RANK, device=device).requires_grad_(), 1.0
        )
    return branches
