"""Rehearse a training step of one strategy on tensors without memory and read the peak off it.

Nothing is estimated here: the very functions that train (adapt, make_optimizer, train_step) run on meta tensors
that claim to be on the training device, and every storage they would make is counted while it would live.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, cast

import torch

from taskit.memory.conditions import Conditions
from taskit.memory.known import KnownInputs
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.memory.shapes import RULES, SCRATCH
from taskit.memory.simulated_device import simulated_device
from taskit.step.lora import adapt
from taskit.step.loss import loss_of, row_losses
from taskit.step.parametrization import PLAIN, Parametrization
from taskit.step.recompute import use_checkpointing
from taskit.step.step import Loss, make_optimizer, train_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = dict[str, torch.Tensor]
PASSES = 2  # micro-batches after which every further one needs the same: from the second on, gradients are there


class StepObserver:
    """Is called at two moments of a rehearsed step that trains something; a subclass overrides what it needs."""

    def before_forward(self, model: torch.nn.Module, batch: Batch) -> None:
        """Called once, with the model and the first micro-batch, before the first forward pass."""

    def before_backward(self, loss: torch.Tensor) -> None:
        """Called with the loss of every micro-batch, whose graph is complete, before its backward pass."""


def rehearse(
    build: "Callable[[], PreTrainedModel]",
    ranks: Mapping[str, int],
    heads: Sequence[str],
    task: str,
    conditions: Conditions,
    observer: StepObserver | None = None,
    parametrization: Parametrization = PLAIN,
) -> int:
    """Peak bytes of training ``ranks`` (location name -> rank) on ``build()``, a model on meta, whose
    locations get LoRA in the given ``parametrization``.  The ``observer`` is called while the step is taken.

    Raises RuntimeError (also its NotImplementedError) where the model does something that needs real numbers.
    """
    return take_step(build, ranks, heads, task, conditions, observer, parametrization).peak + conditions.runtime_bytes


def take_step(
    build: "Callable[[], PreTrainedModel]",
    ranks: Mapping[str, int],
    heads: Sequence[str],
    task: str,
    conditions: Conditions,
    observer: StepObserver | None = None,
    parametrization: Parametrization = PLAIN,
) -> LiveStorages:
    """The step of ``rehearse``; returns what lived during it, with its history where it was taken on numbers."""
    with _no_collection(), torch.device("meta"):
        model = adapt(build(), ranks, heads, task, parametrization)
    if conditions.gradient_checkpointing:
        use_checkpointing(model, conditions.recomputed)
    if conditions.on_numbers:
        fill_with_zeros(model)
    # Accelerate's loader holds the next step's micro-batches already
    alive = 2 * conditions.gradient_accumulation
    passes = min(conditions.gradient_accumulation, PASSES)
    return step_of(model, lambda: [conditions.batch.empty() for _ in range(alive)], passes, conditions, observer)


def step_of(
    model: torch.nn.Module,
    make_batches: Callable[[], list[Batch]],
    count: int,
    conditions: Conditions,
    observer: StepObserver | None = None,
    loss: Loss | None = None,
) -> LiveStorages:
    """One step of ``model``, which is on meta, from the first ``count`` of ``make_batches()``, all of which stay
    alive while it lasts; ``loss`` is that of a micro-batch, by default `loss_of` the model.
    """
    model.train()
    known = bool(conditions.batch.known)
    device = nullcontext() if conditions.on_numbers else simulated_device(conditions.device, known)
    rules = {} if conditions.on_numbers else RULES
    follow = KnownInputs if known and not conditions.on_numbers else LiveStorages
    live = follow(conditions.granularity, rules, SCRATCH, keep=conditions.on_numbers)
    observer = observer or StepObserver()
    with _no_collection(), device, live:
        live.follow(standing_tensors(model))
        batches = make_batches()
        trained = [p for p in model.parameters() if p.requires_grad]
        if trained:
            optimizer = make_optimizer(conditions.optimizer, trained, lr=1e-3, weight_decay=0.0)
            _make_state(optimizer, trained)
            observer.before_forward(model, batches[0])

            def backward(loss: torch.Tensor) -> None:
                observer.before_backward(loss)
                loss.backward()

            chunked = partial(loss_of, model, chunk=conditions.loss_chunk, learned=conditions.batch.learned)
            train_step(model, optimizer, batches[:count], backward=backward, loss=loss or chunked)
        elif loss:  # without anything to train: only ever evaluated
            with torch.no_grad():
                loss(batches[0])
        del batches
        shapes = (conditions.evaluation,) if trained or loss else (conditions.evaluation, conditions.batch)
        for shape in filter(None, shapes):
            with torch.no_grad():
                evaluate_batch(model, shape.empty(), conditions, shape.learned)
    return live


def evaluate_batch(model: torch.nn.Module, batch: Batch, conditions: Conditions, learned: int | None) -> None:
    """The forward pass of an evaluation, as `taskit.training.evaluation` takes it."""
    for module in model.modules():  # bitsandbytes packs its weights anew when it evaluates, which needs numbers
        module.training = type(module).__module__.startswith("bitsandbytes")
    if learned is None:
        model(**batch)
    else:
        row_losses(model, batch, conditions.loss_chunk, learned)


@torch.no_grad()
def fill_with_zeros(model: torch.nn.Module) -> None:
    """Give a model on meta real tensors of zeros: any values do, but meta tensors have none."""
    model.to_empty(device="cpu")
    cast("PreTrainedModel", model).tie_weights()  # to_empty gives each name a tensor of its own
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.zero_()


def _make_state(optimizer: torch.optim.Optimizer, trained: Sequence[torch.nn.Parameter]) -> None:
    """Take a first step with gradients of zero: the optimizer's state exists from the second step on."""
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the cycle collector off: it costs a third of the time, and its moments would be read as frees."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
