"""One optimizer step, shared by the training loop and by the memory planner that rehearses it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from taskit.errors import PlanError

if TYPE_CHECKING:
    import torch

Loss = Callable[[Mapping[str, Any]], "torch.Tensor"]  # the mean loss of a micro-batch, with its graph
OPTIMIZERS = ("adamw", "adamw8bit", "sgd")
CLIP_NORM = 1.0


def make_optimizer(name: str, params: "Iterable[Any]", lr: float, weight_decay: float) -> "torch.optim.Optimizer":
    """The optimizer by its name in the plan; fused kernels, because they need no temporaries.

    Raises:
        PlanError: its package is not installed.
    """
    import torch

    if name == "adamw8bit":
        if find_spec("bitsandbytes") is None:
            raise PlanError("The optimizer adamw8bit needs bitsandbytes; run pip install bitsandbytes.")
        from bitsandbytes.optim.adamw import AdamW8bit

        return AdamW8bit(list(params), lr=lr, weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay, momentum=0.9, fused=True)
    return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, fused=True)


def unobserved(_norm: "torch.Tensor") -> "AbstractContextManager[None]":
    """As ``around_update`` of `train_step`: reads nothing, and doesn't keep the norm in memory during the update."""
    return nullcontext()


def train_step(
    model: "torch.nn.Module",
    optimizer: "torch.optim.Optimizer",
    micro_batches: "Iterable[Mapping[str, torch.Tensor]]",
    synchronise: "Callable[[Sequence[Any]], None] | None" = None,
    shares: "Sequence[float] | None" = None,
    backward: "Callable[[torch.Tensor], None] | None" = None,
    loss: "Callable[[Mapping[str, torch.Tensor]], torch.Tensor] | None" = None,
    around_update: "Callable[[torch.Tensor], AbstractContextManager[None]]" = unobserved,
) -> "torch.Tensor":
    """Forward, backward, clip, update; returns the detached mean loss of the micro-batches.

    ``shares`` of the micro-batches in the step, by their targets, make the step that of one whole batch; without
    them all count alike.  ``synchronise`` is given the trained parameters once their gradients are computed.
    ``backward`` replaces ``loss.backward()``, where a caller needs the loss with its graph.  ``loss`` computes the
    mean loss of a micro-batch; by default `loss_of` ``model``.  The update is made inside the context that
    ``around_update`` returns for the norm of the gradients before clipping: there the clipped gradients can be read.
    """
    import torch

    from taskit.step.loss import loss_of

    micro_batches = list(micro_batches)
    total = torch.zeros(())
    for batch, share in zip(micro_batches, shares or [1 / len(micro_batches)] * len(micro_batches), strict=True):
        part = (loss(batch) if loss else loss_of(model, batch)) * share
        total = total + part.detach()
        backward(part) if backward else part.backward()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    if synchronise:
        synchronise(trained)
    with around_update(torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM, foreach=False)):
        optimizer.step()
    optimizer.zero_grad()
    return total
