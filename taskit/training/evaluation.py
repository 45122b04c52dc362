"""Score a model on normalised rows: accuracy for classes, mean token loss for generation."""

from collections.abc import Iterable
from typing import Any

import torch

HIGHER_IS_BETTER = {"accuracy": True, "loss": False}


def metric_of(task: str) -> str:
    return "loss" if task == "text-generation" else "accuracy"


def better(metric: str, new: float, old: float) -> bool:
    return new > old if HIGHER_IS_BETTER[metric] else new < old


@torch.no_grad()
def evaluate(
    model: Any, batches: Iterable[dict[str, torch.Tensor]], task: str, gather: Any = lambda pair: pair
) -> float:
    """Accuracy in 0..1, or the cross-entropy per target token in nats.

    ``gather`` collects a pair of tensors over processes (Accelerate's gather_for_metrics).
    """
    training = model.training
    model.eval()
    total, count = 0.0, 0
    for batch in batches:
        total_here, count_here = gather(_score(model, batch, task))
        total += total_here.sum().item()
        count += int(count_here.sum().item())
    model.train(training)
    return total / max(count, 1)


def _score(model: Any, batch: dict[str, torch.Tensor], task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum, count) over the rows of a batch, each with one element a row or token group."""
    output = model(**batch)
    labels = batch["labels"]
    if metric_of(task) == "accuracy":
        return (output.logits.argmax(-1) == labels).float(), torch.ones_like(labels)
    shifted = 0 if model.config.is_encoder_decoder else 1
    targets = (labels[:, shifted:] != -100).sum()[None]
    return output.loss.detach()[None] * targets, targets
