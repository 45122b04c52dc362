"""Score a model on normalised rows: accuracy and macro-F1 for classes, token loss and perplexity for generation."""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch.nn.functional import cross_entropy

from taskit.backbone.config import WRITING
from taskit.step.loss import loss_chunk, row_losses
from taskit.training.results import HardRow, Scores

HIGHER_IS_BETTER = {"accuracy": True, "loss": False}
HARDEST = 8
CONFUSION_CLASSES = 100  # more classes make a matrix too large to read


def metric_of(task: str) -> str:
    return "loss" if task in WRITING else "accuracy"


def better(metric: str, new: float, old: float) -> bool:
    return new > old if HIGHER_IS_BETTER[metric] else new < old


@torch.no_grad()
def evaluate(
    model: Any, batches: Iterable[dict[str, torch.Tensor]], task: str, gather: Any = lambda columns: columns
) -> Scores:
    """Score ``model`` on all batches.

    ``gather`` collects a tuple of tensors over processes, in the order of the rows (Accelerate's
    gather_for_metrics).
    """
    training, writes = model.training, metric_of(task) == "loss"
    model.eval()
    outcome = partial(row_losses, model, chunk=loss_chunk(model)) if writes else partial(_outcomes, model)
    parts = [gather(outcome(batch)) for batch in batches]
    model.train(training)
    columns = [torch.cat(column).cpu() for column in zip(*parts, strict=True)]
    return _text_scores(*columns) if writes else _class_scores(model.config, *columns)


def _text_scores(sums: torch.Tensor, counts: torch.Tensor) -> Scores:
    loss = sums.sum().item() / max(int(counts.sum()), 1)
    worst = _hardest(sums / counts.clamp_min(1))
    rows = tuple(HardRow(row, value) for row, value in worst)
    return Scores(loss, perplexity=math.exp(min(loss, 700.0)), hardest=rows)


def _class_scores(config: Any, losses: torch.Tensor, predicted: torch.Tensor, labels: torch.Tensor) -> Scores:
    names = config.id2label
    rows = (HardRow(row, loss, names[int(labels[row])], names[int(predicted[row])]) for row, loss in _hardest(losses))
    return replace(classification_scores(predicted, labels, config.num_labels), hardest=tuple(rows))


def _hardest(losses: torch.Tensor) -> list[tuple[int, float]]:
    """(position, loss) of the highest of ``losses`` (n,), the highest first."""
    found = losses.float().topk(min(HARDEST, len(losses)))
    return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))


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


def _outcomes(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """(loss, predicted, true class id) of every row."""
    logits, labels = model(**batch).logits, batch["labels"]
    return cross_entropy(logits.float(), labels, reduction="none"), logits.argmax(-1), labels
