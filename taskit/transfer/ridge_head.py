"""A classification head in closed form: ridge regression on frozen features, chosen and scaled by leave-one-out."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Scale of a fitted head's logits at the start of training, and of its learning rate.  At 1 a head that explains its
# rows leaves the features no gradient; at 0.1 short trainings end before head and features have found together.
SOFTENED = 0.3
# Candidates relative to the largest squared singular value, strongest first, so that a tie goes to the simpler head.
RIDGES = tuple(10.0 ** (k / 2) for k in range(4, -15, -1))
# Inverse temperatures for predictions that lie near 0 and 1; neighbours differ by 5 %.
SCALES = tuple(10.0 ** (k / 48) for k in range(-48, 97))


@dataclass(frozen=True, slots=True)
class Head:
    """``weight`` (classes, d) and ``bias`` (classes,), and logits ``held_out`` (n, classes) of the rows it was
    fitted on, each by the head fitted on all others.

    ``unexplained`` is rho, the cross-entropy that the head leaves on those rows over the entropy of their labels: 0
    where the features determine the labels, 1 where they say nothing about them.
    """

    weight: Tensor
    bias: Tensor
    held_out: Tensor
    unexplained: float


def fit_head(features: Tensor, labels: Tensor, classes: int) -> Head:
    """The head for which ``features @ weight.T + bias`` are usable logits.

    ``features`` is (n, d), ``labels`` (n,) with values in 0..classes-1.  Ridge regression of the centred one-hot
    labels on standardised features; the ridge has the least leave-one-out squared error, and one scale gives
    the leave-one-out predictions the least cross-entropy.  Deterministic; n < d and absent classes are fine.
    """
    x = features.detach().double()
    y = F.one_hot(labels.to(x.device), classes).double()
    mean, sigma = x.mean(0), x.std(0, correction=0)
    sigma = torch.where(sigma > 1e-6 * sigma.max(), sigma, 1.0)  # a constant feature stays constant
    u, s, vt = torch.linalg.svd((x - mean) / sigma, full_matrices=False)
    tried = (_leave_one_out(u, s, y, ridge) for ridge in _ridges(s))
    _, ridge, predictions = min(tried, key=lambda result: result[0])
    scale = min(SCALES, key=lambda c: float(F.cross_entropy(c * predictions, labels.to(x.device))))
    coefficients = vt.T @ ((s / (s**2 + ridge))[:, None] * (u.T @ (y - y.mean(0))))  # (d, classes)
    weight = scale * (coefficients / sigma[:, None]).T
    bias = scale * y.mean(0) - weight @ mean
    left = float(F.cross_entropy(x @ weight.T + bias, labels.to(x.device)))
    entropy = float(torch.special.entr(y.mean(0)).sum())
    unexplained = min(left / entropy, 1.0) if entropy else 0.0
    weight, bias, held_out = (part.to(features.dtype) for part in (weight, bias, scale * predictions))
    return Head(weight, bias, held_out, unexplained)


def _ridges(s: Tensor) -> list[float]:
    largest = max(float(s.max()) ** 2, 1e-12)
    return [ridge * largest for ridge in RIDGES]


def _leave_one_out(u: Tensor, s: Tensor, y: Tensor, ridge: float) -> tuple[float, float, Tensor]:
    """(squared error, ridge, predictions (n, classes)), each row predicted by the fit to all the others.

    The intercept is not penalised, so the hat matrix is 11'/n + U diag(s^2 / (s^2 + ridge)) U', and a left-out
    residual is the residual over 1 - h_ii: exact, with no refit.
    """
    shrink = s**2 / (s**2 + ridge)
    fitted = y.mean(0) + u @ (shrink[:, None] * (u.T @ (y - y.mean(0))))
    leverage = 1 / len(y) + (u**2 * shrink).sum(1)
    residual = (y - fitted) / (1 - leverage).clamp_min(1e-9)[:, None]
    return float((residual**2).sum()), ridge, y - residual
