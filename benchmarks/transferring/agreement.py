"""The actual importance of every location, and how well predictions agree with it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import spearmanr


def ablation_drops(truth: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """By kind, (locations, n): what each test row loses without a module.

    accuracy: right before, wrong after, or the reverse.  loss: cross-entropy at the temperature that the
    validation rows ask for, so that an over-confident model does not profit from a loss of confidence.
    """
    temperature = calibrated(truth["held_logits"], truth["held_labels"])
    scores, labels = truth["logits"].astype(float), truth["labels"]
    hit = scores.argmax(-1) == labels
    loss = row_losses(scores / temperature, labels)
    return {"accuracy": hit[0].astype(float) - hit[1:], "loss": loss[1:] - loss[0]}


def insertion_gains(truth: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """By kind, (locations, n): what each test row gains by training one module with the head, and not the head alone.

    The head starts softened, so that its loss before training is no measure of what it learns by itself.
    """
    scores, labels = truth["logits"].astype(float), truth["labels"]
    hit = scores.argmax(-1) == labels
    loss = row_losses(scores, labels)
    return {"accuracy": hit[1:] - hit[0].astype(float), "loss": loss[0] - loss[1:]}


def row_losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy (..., n) of logits (..., n, classes)."""
    return -log_softmax(scores, axis=-1)[..., np.arange(len(labels)), labels]


def calibrated(scores: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that gives these rows the least cross-entropy."""
    scores = scores.astype(float)
    best = minimize_scalar(
        lambda log: row_losses(scores / np.exp(log), labels).mean(), bounds=(-3, 3), method="bounded"
    )
    return float(np.exp(best.x))


def rho(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman; 0 where one side is constant."""
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    return float(spearmanr(left, right).statistic)


def split_half(rows: np.ndarray, draws: int = 20) -> float:
    """Reliability of the mean over n of (locations, n): mean rho between random halves, stepped up to all of n."""
    choose, found = np.random.default_rng(0), []
    for _ in range(draws):
        order = choose.permutation(rows.shape[1])
        middle = len(order) // 2
        found.append(rho(rows[:, order[:middle]].mean(1), rows[:, order[middle:]].mean(1)))
    half = float(np.mean(found))
    return 2 * half / (1 + half) if half > 0 else 0.0  # Spearman-Brown
