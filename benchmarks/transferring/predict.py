"""Measures of similarity and importance, computed from the evidence of a probe."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from taskit.transfer.similarity import displacement, trial_similarities

Evidence = Mapping[str, Any]
TINY = 1e-300


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine along the last axis."""
    scale = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return (left * right).sum(-1) / np.maximum(scale, TINY)


def similarities(e: Evidence) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By kind: predicted and true similarity to every learned adapter; the true one is the mean over all trainings.

    raw: cos(x*, x(w_i)) against cos(x(w_new), x(w_i)).  All others against the cosine of both displacements.
    delta: cos(-grad, x(w_i) - x).  trial: the product's own.  trial even: with rho = 1/2, whatever the features
    explain.  trial alone: without the common drift.  trial beyond:
    in both, what lies along the mean direction of the other learned tasks is left out, so that a zoo of tasks which
    all resemble the new one has similarity 0.  Each per example and averaged, or of the batch as one vector (pooled).
    ceiling: another training for the trial.
    """
    x, moved, count = e["x"].astype(float), e["moved"].astype(float), learned(e)
    others, tried, owns = moved[:count], moved[count], moved[count + 1 :]
    shift = others - x
    truth = np.mean([cosines(shift, own - x).mean(1) for own in owns], 0)
    raw = np.mean([cosines(own, others).mean(1) for own in owns], 0)
    pooled = np.mean([cosines(flat(shift), flat((own - x)[None])) for own in owns], 0)
    units = [displacement(torch.from_numpy(x), torch.from_numpy(one)) for one in moved[: count + 1]]
    found = {
        "trial": (np.array(trial_similarities(units[-1], units[:-1], float(e["unexplained"]))), truth),
        "trial even": (np.array(trial_similarities(units[-1], units[:-1], 0.5)), truth),
        "trial beyond": (beyond(tried - x, shift), np.mean([beyond(own - x, shift) for own in owns], 0)),
        "trial alone": (cosines(shift, tried - x).mean(1), truth),
        "trial pooled": (cosines(flat(shift), flat((tried - x)[None])), pooled),
    }
    for head in ("fold", "head", "soft"):
        gradient = e[f"direction_{head}"].astype(float)
        eta = 0.1 * np.linalg.norm(x) / max(np.linalg.norm(gradient), TINY)
        found[f"raw {head}"] = cosines(x - eta * gradient, others).mean(1), raw
        found[f"delta {head}"] = cosines(-gradient, shift).mean(1), truth
        found[f"delta pooled {head}"] = cosines(flat(-gradient[None]), flat(shift)), pooled
        if f"taylor_{head}" not in e:
            continue  # where nothing was measured by location
        slope = e[f"taylor_{head}"][:count, :, 0].sum(1)
        size = np.linalg.norm(e[f"taylor_{head}"][:count, :, 1], axis=1)
        whole = np.linalg.norm(e[f"norms_{head}"][:, 0])
        found[f"gradient {head}"] = -slope / np.maximum(size * whole, TINY), pooled
    if len(owns) > 1:
        rest = np.mean([cosines(shift, own - x).mean(1) for own in owns[1:]], 0)
        found["ceiling"] = cosines(shift, owns[0] - x).mean(1), rest
    return found


def beyond(step: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(i,) mean cosine over examples of ``step`` (n, d) and each ``shift`` (i, n, d) without what they share."""
    units = unit(shift)
    found = []
    for one in units:
        shared = unit(units.sum(0) - one)
        left, right = (part - (part * shared).sum(-1, keepdims=True) * shared for part in (unit(step), one))
        found.append(cosines(left, right).mean())
    return np.array(found)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), TINY)


def learned(e: Evidence) -> int:
    """How many of the adapters are learned ones; the trial and the trained ones follow."""
    return list(e["adapters"]).index("trial")


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def branch_measures(e: Evidence, own: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """lambda_i^k (i, k) of every measure of one learned module; ``own`` are its sums on its own data (i, k, 4)."""
    found = {name: rows[: learned(e)] for name, rows in adapter_measures(e).items()}
    if own is not None:
        found["own data"] = own[..., 0] / (own[..., 1] + 1e-8)
    return found


def adapter_measures(e: Evidence) -> dict[str, np.ndarray]:
    """Importance (i, k) of every adapter by itself, the trial's and the trained one's among them."""
    s = e["sums"]
    return {
        "ratio": s[..., 0] / (s[..., 1] + 1e-8),
        "numerator": s[..., 0],
        "l2": np.sqrt(s[..., 2] / (s[..., 3] + 1e-8)),
        "taylor": np.abs(e["taylor_soft"][..., 0]),
        "taylor fold": np.abs(e["taylor_fold"][..., 0]),
        "update": e["taylor_soft"][..., 1],
    }


def data_measures(e: Evidence) -> dict[str, np.ndarray]:
    """Importance (k,) from the new data alone."""
    found: dict[str, np.ndarray] = {}
    sizes = e["shapes"][:, 0] + e["shapes"][:, 1]
    area = e["shapes"][:, 0] * e["shapes"][:, 1]
    for head in ("fold", "soft"):
        frobenius, nuclear, l1 = e[f"norms_{head}"].T
        found |= {f"gradient {head}": frobenius, f"nuclear {head}": nuclear, f"l1 {head}": l1}
        found |= {f"spt {head}": e[f"spt_{head}"], f"spt mean {head}": e[f"spt_{head}"] / area}
        found |= {f"gradient per row {head}": frobenius / np.sqrt(sizes)}
    for name, rows in adapter_measures(e).items():
        found |= {f"{name} of the trial": rows[learned(e)], f"{name} of the trained": rows[learned(e) + 1 :].mean(0)}
    found["removed in the trial"] = np.maximum(e["removed"], 0.0)
    found["trial"] = np.cbrt(found["removed in the trial"] * found["update of the trial"] ** 2)  # lambda_0
    found["depth"] = e["shapes"][:, 2].astype(float)
    found["size"] = sizes.astype(float)
    return found


def transferred(phi: np.ndarray, rows: np.ndarray, *, threshold: float = 0.0, normalised: bool = False) -> np.ndarray:
    """Eq. (2) over the adapters above the threshold; ``normalised``: each adapter's importances have mean 1."""
    if normalised:
        rows = rows / np.maximum(rows.mean(1, keepdims=True), TINY)
    return (np.where(phi > threshold, phi, 0.0)[:, None] * rows).sum(0)
