"""Similarity of the new task to a learned one: does the adapter move the features where the loss wants them?

    raw       phi_i = cos(x*, x(theta + w_i; d))                           Eq. (4), the paper's
    delta     phi_i = cos(-grad_x L, x(theta + w_i; d) - x(theta; d))      centred at 0, the same for every eta
    gradient  phi_i = <-grad_W L, dW_i> / (||grad_W L|| ||dW_i||)          between updates of weights, as in TGLoRA
    trial     phi_i = cos(x(theta + w_0; d) - x(theta; d), x(theta + w_i; d) - x(theta; d))    w_0: see `taskit.trial`

raw, delta and trial flatten the tokens that are no padding, example by example, and are averaged over examples: our
reading.
For gradient the learned task's update dW_i = s B A stands for its gradient; the product is that of grad_x L with the
features' derivative along dW_i, which a small step shows, so that no gradient of a weight is ever made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALL = 0.01  # of an adapter: a step so small that the features answer it linearly
STEP = 0.1  # ||eta grad|| / ||x||; the paper's eta = 10 depends on the reduction of the loss
TINY = 1e-300  # a vector that vanishes has cosine 0
THRESHOLDS = {
    "raw": 0.35,
    "delta": 0.0,
    "gradient": 0.0,
    "trial": 0.0,
    "embedding": 0.15,
}  # 0.35 and 0.15 are the papers'; 0: the adapter helps rather than hurts, to first order
MEASURES = ("raw", "delta", "gradient", "trial")  # from `taskit.transfer`


@dataclass(frozen=True, slots=True)
class TaskSimilarity:
    """phi of one learned task, and whether it lies above the threshold; ``revision`` pins an adapter of the Hub."""

    task: str
    adapter: str
    phi: float
    used: bool
    revision: str = ""


def ideal_feature(x: Tensor, gradient: Tensor, mask: Tensor | None = None) -> Tensor:
    """x* = x - eta grad_x L with ||eta grad|| = 0.1 ||x|| over the batch; x itself where there is no gradient.

    ``x`` and ``gradient`` are (n, d) or (n, t, d); ``mask`` (n, t) is nonzero at tokens that count.
    """
    length, slope = _flat(x, mask).norm(), _flat(gradient, mask).norm()
    eta = STEP * length / slope if slope > 0 else 0.0
    return x - eta * gradient


def raw_cosine(ideal: Tensor, moved: Tensor, mask: Tensor | None = None) -> Tensor:
    """Eq. (4), raw: cos(x*, x(theta + w_i)) for each example, (n,).

    ``ideal`` and ``moved`` are (n, d) or (n, t, d); ``mask`` (n, t) is nonzero at tokens that count.
    """
    return _cosine(ideal, moved, mask)


def delta_cosine(gradient: Tensor, x: Tensor, moved: Tensor, mask: Tensor | None = None) -> Tensor:
    """Eq. (4), delta: cos(-grad_x L, x(theta + w_i) - x(theta)) for each example, (n,); 0 where either vanishes."""
    return _cosine(-gradient, moved - x, mask)


def trial_cosine(tried: Tensor, x: Tensor, moved: Tensor, mask: Tensor | None = None) -> Tensor:
    """cos(x(theta + w_0) - x(theta), x(theta + w_i) - x(theta)) for each example, (n,); 0 where either vanishes."""
    return _cosine(tried - x, moved - x, mask)


def gradient_cosine(slope: float, update_norm: float, gradient_norm: float) -> float:
    """phi of gradient; ``slope`` is <grad_W L, dW_i>, and ||grad_W L|| the root mean square over examples."""
    return -slope / max(update_norm * gradient_norm, TINY)


def slope_along(gradient: Tensor, x: Tensor, moved: Tensor, mask: Tensor | None = None) -> float:
    """<grad_x L, (x(theta + SMALL w_i) - x(theta)) / SMALL> over all examples: <grad_W L, dW_i> to first order."""
    return float((_flat(gradient, mask) * _flat(moved - x, mask)).sum()) / SMALL


def judge(named: Sequence[tuple[str, str]], phis: Sequence[float], kind: str) -> tuple[TaskSimilarity, ...]:
    """One TaskSimilarity for each (task, adapter); a task is used if its phi exceeds the threshold of ``kind``."""
    threshold = THRESHOLDS[kind]
    return tuple(
        TaskSimilarity(task, adapter, phi, phi > threshold) for (task, adapter), phi in zip(named, phis, strict=True)
    )


def _cosine(left: Tensor, right: Tensor, mask: Tensor | None) -> Tensor:
    left, right = _flat(left, mask), _flat(right, mask)
    return (left * right).sum(1) / (left.norm(dim=1) * right.norm(dim=1)).clamp_min(TINY)


def _flat(x: Tensor, mask: Tensor | None) -> Tensor:
    """Each example as one vector (n, -1), padding zeroed; float64, as the squares of small gradients underflow."""
    if mask is not None:
        x = torch.where(mask.bool()[..., None], x, 0.0)  # where, not *: padding may hold NaN
    return x.double().flatten(1)
