"""The linear head only: logistic regression on frozen features, the baseline and the start of every run."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from taskit.step.targets import inputs_of
from taskit.transfer.probe import example_features

STRENGTHS = (0.01, 0.1, 1.0)  # inverse regularisation, chosen on the validation rows


def fit_linear_head(
    model: torch.nn.Module,
    head: torch.nn.Linear,
    train: Iterable[Mapping[str, torch.Tensor]],
    validation: Iterable[Mapping[str, torch.Tensor]],
) -> None:
    """Write the best logistic regression on the inputs of ``head``, (n, d), into ``head``.

    The batches carry ``labels`` (n,), class ids below ``head.out_features``.  Deterministic.
    """
    x, y = _features(model, head, train)
    x_held, y_held = _features(model, head, validation)
    scaler = StandardScaler().fit(x)
    bias = head.bias is not None
    fits = [
        LogisticRegression(C=strength, max_iter=300, fit_intercept=bias).fit(scaler.transform(x), y)
        for strength in STRENGTHS
    ]
    best = max(fits, key=lambda fit: fit.score(scaler.transform(x_held), y_held))
    _write(head, best, scaler)


@torch.no_grad()
def scale_logits(head: torch.nn.Linear, factor: float) -> None:
    """Multiply the logits that ``head`` computes: its predictions stay the same, their confidence does not."""
    for parameter in head.parameters():
        parameter.mul_(factor)


def _features(
    model: Any, head: torch.nn.Linear, batches: Iterable[Mapping[str, torch.Tensor]]
) -> tuple[np.ndarray, np.ndarray]:
    xs, ys = [], []
    for batch in batches:
        xs.append(example_features(model, head, inputs_of(batch)).float().cpu().numpy())
        ys.append(batch["labels"].cpu().numpy())
    return np.concatenate(xs), np.concatenate(ys)


@torch.no_grad()
def _write(head: torch.nn.Linear, fit: LogisticRegression, scaler: StandardScaler) -> None:
    """Fold the scaling of the features into the weights; classes without a row keep a low logit."""
    weight, bias = fit.coef_ / scaler.scale_, fit.intercept_ - (fit.coef_ / scaler.scale_) @ scaler.mean_
    if len(fit.classes_) == 2:  # one row of coefficients stands for the difference of two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    head.weight.zero_()
    head.weight[fit.classes_] = torch.from_numpy(weight).to(head.weight)
    if head.bias is not None:
        head.bias.fill_(float(bias.min()) - 5.0)
        head.bias[fit.classes_] = torch.from_numpy(bias).to(head.bias)
