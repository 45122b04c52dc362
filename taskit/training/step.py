"""One optimizer step, shared by the training loop and by the memory planner that rehearses it."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

OPTIMIZERS = ("adamw", "adamw8bit", "sgd")
CLIP_NORM = 1.0


def make_optimizer(name: str, params: "Iterable[Any]", lr: float, weight_decay: float) -> "torch.optim.Optimizer":
    """The optimizer by its name in the plan; fused kernels, because they need no temporaries."""
    import torch

    if name == "adamw8bit":
        from bitsandbytes.optim.adamw import AdamW8bit

        return AdamW8bit(list(params), lr=lr, weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay, momentum=0.9, fused=True)
    return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, fused=True)


def use_checkpointing(model: Any) -> None:
    """Recompute every block in the backward pass; no dropout is active, so no RNG state is kept or checked."""
    options = {"use_reentrant": False, "preserve_rng_state": False, "determinism_check": "none"}
    model.gradient_checkpointing_enable(options)


def train_step(
    model: "torch.nn.Module",
    optimizer: "torch.optim.Optimizer",
    micro_batches: "Iterable[Mapping[str, torch.Tensor]]",
    backward: "Callable[[torch.Tensor], None] | None" = None,
) -> "torch.Tensor":
    """Forward, backward, clip, update; returns the detached mean loss of the micro-batches.

    ``micro_batches`` of equal size add up to one batch.  ``backward`` is Accelerate's where there is one.
    """
    import torch

    micro_batches = list(micro_batches)
    total = torch.zeros(())
    for batch in micro_batches:
        loss = model(**batch).loss / len(micro_batches)
        total = total + loss.detach()
        backward(loss) if backward else loss.backward()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM, foreach=False)
    optimizer.step()
    optimizer.zero_grad()
    return total
