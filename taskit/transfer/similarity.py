"""Similarity of the new task to a learned one: does the adapter move the features where the loss wants them?

    raw       phi_i = cos(x*, x(theta + w_i; d))                           Eq. (4), the paper's
    delta     phi_i = cos(-grad_x L, x(theta + w_i; d) - x(theta; d))      centred at 0, the same for every eta
    gradient  phi_i = <-grad_W L, dW_i> / (||grad_W L|| ||dW_i||)          between updates of weights, as in TGLoRA
    trial     phi_i = cos((1 - s) u_0 + s c u_{-i}, u_i)                  between displacements, w_0 of trial.py

raw and delta flatten the tokens that are no padding, trial averages over them; all work example by example and are
averaged over examples: our reading.  fisher is in `taskit.transfer.fisher`.
For gradient the learned task's update dW_i = s B A stands for its gradient; the product is that of grad_x L with the
features' derivative along dW_i, which a small step shows, so that no gradient of a weight is ever made.
For trial u_i is the direction of x(theta + w_i; d) - x(theta; d), and u_{-i} that of the mean of all u_j, j > 0 and
j != i.  Whole trainings also drift in a direction that they share, and a trial is too short to have gone there; how
much they share is c, the mean cosine between the u of two learned tasks.  And the less the frozen features say about
the labels, the more a training tended to drift, and the more of its trial to be noise.  So rho, what
they leave unexplained (ridge_head.py), divides the say between trial and drift: s = (rho + 1/2) / 2, half-way to one
half, for a fitted head may explain by chance.  Both have as much where no head is fitted.
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
    "fisher": 0.0,
    "embedding": 0.15,
}  # 0.35 and 0.15 are the papers'; 0: the adapter helps rather than hurts, to first order
MEASURES = ("raw", "delta", "gradient", "trial", "fisher")  # from `taskit.transfer.measure`


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


def displacement(x: Tensor, moved: Tensor, mask: Tensor | None = None) -> Tensor:
    """u (n, d): the direction of ``moved`` - ``x`` for each example, its tokens averaged; 0 where it vanishes."""
    step = (moved - x).double()
    if step.ndim == 3:
        mask = torch.ones(step.shape[:2]) if mask is None else mask
        step = torch.where(mask.to(step.device).bool()[..., None], step, 0.0).sum(1)  # a direction needs no division
    return _unit(step)


def shared_cosine(moves: Sequence[Tensor]) -> float:
    """c: the mean cosine between two of the directions ``moves``, each (n, d); 0 where it is below 0."""
    if len(moves) < 2:
        return 0.0
    total = sum((move.double() for move in moves), torch.zeros(()))
    themselves = sum((move.double().square() for move in moves), torch.zeros(()))
    pairs = (total.square() - themselves).sum(1).mean()
    return max(float(pairs) / (len(moves) * (len(moves) - 1)), 0.0)


def trial_similarities(tried: Tensor, moves: Sequence[Tensor], unexplained: float) -> list[float]:
    """phi of trial for each learned task, from the `displacement` (n, d) of the trial and of every task.

    ``unexplained`` is rho, in 0..1.
    """
    total = sum((move.double() for move in moves), torch.zeros(()))
    shared, drift = shared_cosine(moves), (unexplained + 0.5) / 2
    phis = []
    for move in moves:
        target_update = (1 - drift) * tried.double() + drift * shared * _unit(total - move.double())
        phis.append(float(_cosine(target_update, move, None).mean()))
    return phis


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


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(TINY)


def _cosine(left: Tensor, right: Tensor, mask: Tensor | None) -> Tensor:
    left, right = _flat(left, mask), _flat(right, mask)
    return (left * right).sum(1) / (left.norm(dim=1) * right.norm(dim=1)).clamp_min(TINY)


def _flat(x: Tensor, mask: Tensor | None) -> Tensor:
    """Each example as one vector (n, -1), padding zeroed; float64, as the squares of small gradients underflow."""
    if mask is not None:
        x = torch.where(mask.bool()[..., None], x, 0.0)  # where, not *: padding may hold NaN
    return x.double().flatten(1)
