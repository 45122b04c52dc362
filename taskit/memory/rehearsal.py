"""Rehearse a training step of one strategy on tensors without memory and read the peak off it.

Nothing is estimated here: the very functions that train (adapt, make_optimizer, train_step) run on meta tensors
that pass for tensors on the training device, and every storage they would make is counted while it would live.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch

from taskit.memory.conditions import Conditions
from taskit.memory.known import KnownInputs
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.memory.shapes import RULES, SCRATCH
from taskit.memory.simulated_device import simulated_device
from taskit.step.lora import adapt
from taskit.step.parametrization import PLAIN, Parametrization
from taskit.step.recompute import use_checkpointing
from taskit.step.step import make_optimizer, train_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = dict[str, torch.Tensor]
# Sees the model and its batch before the step; what it returns sees the loss before the backward pass.
Watch = Callable[[Any, Batch], Callable[[torch.Tensor], None]]


def rehearse(
    build: "Callable[[], PreTrainedModel]",
    ranks: Mapping[str, int],
    heads: Sequence[str],
    task: str,
    conditions: Conditions,
    watch: Watch | None = None,
    parametrization: Parametrization = PLAIN,
) -> int:
    """Peak bytes of training ``ranks`` (location name -> rank) in ``form`` on ``build()``, a model on meta.

    Raises RuntimeError (also its NotImplementedError) where the model does something that needs real numbers.
    """
    return take_step(build, ranks, heads, task, conditions, watch, parametrization).peak + conditions.runtime_bytes


def take_step(
    build: "Callable[[], PreTrainedModel]",
    ranks: Mapping[str, int],
    heads: Sequence[str],
    task: str,
    conditions: Conditions,
    watch: Watch | None = None,
    parametrization: Parametrization = PLAIN,
) -> LiveStorages:
    """The step of ``rehearse``, and what lived during it: its history too where it was taken on numbers."""
    with _no_collection(), torch.device("meta"):
        model = adapt(build(), ranks, heads, task, parametrization)
    if conditions.gradient_checkpointing:
        use_checkpointing(model)
    if conditions.on_numbers:
        fill_with_zeros(model)
    # one batch more than a step takes: Accelerate's loader holds the next one already
    count = conditions.gradient_accumulation
    return step_of(model, lambda: [conditions.batch.empty() for _ in range(count + 1)], count, conditions, watch)


def step_of(
    model: torch.nn.Module,
    make_batches: Callable[[], list[Batch]],
    count: int,
    conditions: Conditions,
    watch: Watch | None = None,
) -> LiveStorages:
    """One step of a model that is there, on meta, from the first ``count`` of the batches that are made for it; all
    of them are alive while it lasts."""
    model.train()
    known = bool(conditions.batch.known)
    device = nullcontext() if conditions.on_numbers else simulated_device(conditions.device, known)
    rules = {} if conditions.on_numbers else RULES
    follow = KnownInputs if known and not conditions.on_numbers else LiveStorages
    live = follow(conditions.granularity, rules, SCRATCH, keep=conditions.on_numbers)
    with _no_collection(), device, live:
        live.follow(standing_tensors(model))
        batches = make_batches()
        trained = [p for p in model.parameters() if p.requires_grad]
        if trained:
            optimizer = make_optimizer(conditions.optimizer, trained, lr=1e-3, weight_decay=0.0)
            _make_state(optimizer, trained)
            see = watch(model, batches[0]) if watch else None
            train_step(model, optimizer, batches[:count], backward=_backward(see))
        else:  # without anything to train: only ever evaluated
            with torch.no_grad():
                model(**batches[0])
    return live


@torch.no_grad()
def fill_with_zeros(model: torch.nn.Module) -> None:
    """Give a model on meta real tensors; their values do not matter, but they must be numbers."""
    model.to_empty(device="cpu")
    cast("PreTrainedModel", model).tie_weights()  # to_empty gives each name a tensor of its own
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.zero_()


def _make_state(optimizer: torch.optim.Optimizer, trained: Sequence[torch.nn.Parameter]) -> None:
    """Take a first step with empty gradients: the optimizer's state is there from the second step on."""
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def _backward(see: Callable[[torch.Tensor], None] | None) -> Callable[[torch.Tensor], None]:
    def backward(loss: torch.Tensor) -> None:
        if see is not None:
            see(loss)
        loss.backward()

    return backward


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
