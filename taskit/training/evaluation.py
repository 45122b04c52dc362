"""Score a model on normalised rows: accuracy and macro-F1 for classes, token loss and perplexity for generation."""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch

from taskit.training.scores import Scores

HIGHER_IS_BETTER = {"accuracy": True, "loss": False}
CONFUSION_CLASSES = 100  # more classes make a matrix that nobody reads


def metric_of(task: str) -> str:
    return "loss" if task == "text-generation" else "accuracy"


def better(metric: str, new: float, old: float) -> bool:
    return new > old if HIGHER_IS_BETTER[metric] else new < old


@torch.no_grad()
def evaluate(
    model: Any, batches: Iterable[dict[str, torch.Tensor]], task: str, gather: Any = lambda pair: pair
) -> Scores:
    """Score ``model`` on all batches.

    ``gather`` collects a pair of tensors over processes (Accelerate's gather_for_metrics).
    """
    training = model.training
    model.eval()
    pairs = [gather(_outcome(model, batch, task)) for batch in batches]
    model.train(training)
    first, second = (torch.cat(column).cpu() for column in zip(*pairs, strict=True))
    if metric_of(task) == "loss":
        loss = first.sum().item() / max(int(second.sum()), 1)
        return Scores(loss, perplexity=math.exp(min(loss, 700.0)))
    return classification_scores(first, second, model.config.num_labels)


def classification_scores(predicted: torch.Tensor, labels: torch.Tensor, classes: int) -> Scores:
    """Scores of predicted class ids (n,) against the true ones (n,)."""
    from sklearn.metrics import confusion_matrix, f1_score

    ids = list(range(classes))
    matrix = confusion_matrix(labels, predicted, labels=ids) if classes <= CONFUSION_CLASSES else None
    return Scores(
        value=(predicted == labels).float().mean().item(),
        macro_f1=float(f1_score(labels, predicted, labels=ids, average="macro", zero_division=cast(Any, 0))),
        confusion=None if matrix is None else tuple(tuple(row) for row in matrix.tolist()),
    )


def target_count(batch: dict[str, torch.Tensor], encoder_decoder: bool) -> int:
    """How many targets the mean loss of a batch is over: rows, or tokens that are not left out."""
    labels = batch["labels"]
    if labels.ndim == 1 or labels.is_floating_point():
        return len(labels)
    return int((labels[:, 0 if encoder_decoder else 1 :] != -100).sum())


def _outcome(model: Any, batch: dict[str, torch.Tensor], task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(predicted, true) class ids of a batch, or (summed loss, count) of its target tokens."""
    output = model(**batch)
    if metric_of(task) == "accuracy":
        return output.logits.argmax(-1), batch["labels"]
    count = torch.tensor([target_count(batch, model.config.is_encoder_decoder)], device=output.loss.device)
    return output.loss.detach()[None] * count, count
