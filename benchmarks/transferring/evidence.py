"""Everything on which a prediction could rest, measured on the probe of a new task before any training of it.

Kept as raw sums and features, so that every measure of similarity and importance can be computed and compared
afterwards.  Indices: i adapter (the learned ones, the trial, those that training gave with every seed), k location, n
example of the probe, d feature.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.transferring.bench import Batch, Bench
from taskit.transfer.probe import Probe, class_probes, example_features, frozen, held_out_gradient, stand_in_loss
from taskit.transfer.ridge_head import SOFTENED, fit_head
from taskit.transfer.sensitivity import sensitivities
from taskit.transfer.trial import Trial, run_trial
from taskit.zoo.adapter import read_config, read_tensors
from taskit.zoo.lora_branch import Branch, attached, linear_shapes

RANK = 8


class Sums:
    """Over all tokens that count: l1 and squared l2 of every branch and of the frozen matrix beside it."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.mask = list(names), None
        self.found = np.zeros((len(self.names), 4))

    def observe(self, name: str, module: nn.Module, output: Tensor, addition: Tensor) -> None:
        if isinstance(module.bias, Tensor):
            output = output - module.bias
        row = []
        for x in (addition, output):
            if self.mask is not None and x.ndim == 3 and x.shape[:2] == self.mask.shape:
                x = x[self.mask.bool()]
            row += [float(x.abs().sum(dtype=torch.float64)), float(x.double().square().sum())]
        self.found[self.names.index(name)] += row


def unlabelled(batch: Batch) -> Batch:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def load(bench: Bench, folder: Path) -> dict[str, Branch]:
    return read_tensors(folder, read_config(folder), linear_shapes(bench.model))


def moved(bench: Bench, branches: Mapping[str, Branch], probe: Sequence[Batch], sums: Sums | None = None) -> Tensor:
    """x(theta + w_i) (n, d); ``sums`` takes note of how loud every branch is."""
    xs = []
    with attached(bench.model, branches, sums and sums.observe):
        for batch in probe:
            if sums:
                sums.mask = batch.get("attention_mask")
            xs.append(example_features(bench.model, bench.head, unlabelled(batch)))
    return torch.cat(xs)


def directions(bench: Bench, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """grad_x L (n, d) under three heads: fitted on the other half of the probe, fitted on all rows, that softened."""
    weight, bias = bench.head.weight.detach(), bench.head.bias.detach()
    target = F.one_hot(labels, len(weight))
    found = {"fold": held_out_gradient(fit_head(x, labels, len(weight)), labels)}
    for name, softness in (("head", 1.0), ("soft", SOFTENED)):
        error = F.softmax(softness * F.linear(x, weight, bias), -1) - target
        found[name] = error @ (softness * weight) / len(x)
    return found


def weight_gradients(bench: Bench, probe: Sequence[Batch], direction: Tensor) -> list[Tensor]:
    """dL/dW_k (out, in) of every location, where ``direction`` (n, d) is grad_x L."""
    weights = [bench.model.get_submodule(name).weight.requires_grad_(True) for name in bench.names]
    total = [torch.zeros_like(w) for w in weights]
    parts = direction.split([len(batch["labels"]) for batch in probe])
    for batch, part in zip(probe, parts, strict=True):
        x = features_with_graph(bench, unlabelled(batch))
        for sum_, grad in zip(total, torch.autograd.grad(x, weights, part), strict=True):
            sum_ += grad
    for weight in weights:
        weight.requires_grad_(False)
    return total


def features_with_graph(bench: Bench, inputs: Batch) -> Tensor:
    seen: list[Tensor] = []
    handle = bench.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.enable_grad():
        bench.model(**inputs)
    handle.remove()
    return seen[0]


def gather(bench: Bench, adapters: Mapping[str, Path], owns: Sequence[Path], out: Path) -> None:
    """Measure everything for one new task; ``adapters`` are the learned ones, ``owns`` what training gave."""
    if out.exists():
        return
    probe = bench.probe()
    labels = torch.cat([batch["labels"] for batch in probe])
    with frozen(bench.model):
        x = torch.cat([example_features(bench.model, bench.head, unlabelled(batch)) for batch in probe])
        learned = [load(bench, folder) for folder in adapters.values()]
        tried, unexplained = trial(bench, probe)
        loaded = [*learned, tried.branches, *(load(bench, own) for own in owns)]
        facts: dict[str, Any] = {"x": x, "unexplained": unexplained}
        facts["removed"] = np.array([tried.removed[name] for name in bench.names])
        found = directions(bench, x, labels)
        facts |= {f"direction_{name}": direction for name, direction in found.items()}
        if bench.family.similarity_only:
            facts["moved"] = torch.stack([moved(bench, branches, probe) for branches in loaded])
        else:
            facts |= by_location(bench, probe, loaded, found)
    named = np.array([*adapters, "trial", *(["own"] * len(owns))])
    shapes = np.array([(place.in_features, place.out_features, place.block) for place in bench.locations])
    part = out.with_name("part.npz")
    np.savez(part, adapters=named, locations=np.array(bench.names), shapes=shapes, **facts)
    part.rename(out)


def by_location(
    bench: Bench, probe: Sequence[Batch], loaded: Sequence[Mapping[str, Branch]], found: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What importances are predicted from: how loud each branch is, and what each of the directions ``found`` asks of
    every location."""
    sums = [Sums(bench.names) for _ in loaded]
    rows = [moved(bench, branches, probe, one) for branches, one in zip(loaded, sums, strict=True)]
    facts: dict[str, Any] = {"moved": torch.stack(rows), "sums": np.stack([one.found for one in sums])}
    for name, direction in found.items():
        grads = weight_gradients(bench, probe, direction)
        facts[f"taylor_{name}"] = np.array([taylor(branches, bench.names, grads) for branches in loaded])
        facts[f"norms_{name}"] = np.array([norms(grad) for grad in grads])
        facts[f"spt_{name}"] = np.array(spt(bench, probe, direction))
    return facts


def spt(bench: Bench, probe: Sequence[Batch], direction: Tensor) -> tuple[float, ...]:
    """SPT's sensitivity of every location, where ``direction`` (n, d) is grad_x L."""
    parts = direction.split([len(batch["labels"]) for batch in probe])
    probes = [Probe(unlabelled(batch), part, part, None) for batch, part in zip(probe, parts, strict=True)]
    read = partial(example_features, bench.model, bench.head, graph=True)
    return sensitivities(bench.model, probes, read, bench.names)


def own_sums(bench: Bench, folder: Path, out: Path) -> None:
    """The sums (k, 4) of a learned adapter on its own task's probe: Table 7's importance on learned data."""
    sums = Sums(bench.names)
    with frozen(bench.model):
        moved(bench, load(bench, folder), bench.probe(), sums)
    np.save(out, sums.found)


def trial(bench: Bench, probe: Sequence[Batch]) -> tuple[Trial, float]:
    """w_0, as planning makes it, and what its head leaves unexplained."""
    read = partial(example_features, bench.model, bench.head)
    further = bench.further()
    _, head = class_probes(bench.model, probe, bench.head, further)
    tried = run_trial(bench.model, (*further, *probe), partial(stand_in_loss, read, head), bench.names)
    return tried, head.unexplained


def taylor(
    branches: Mapping[str, Branch], names: Sequence[str], grads: Sequence[Tensor]
) -> list[tuple[float, float]]:
    """(<dL/dW_k, dW_i^k>, ||dW_i^k||_F) for every location."""
    row = []
    for name, grad in zip(names, grads, strict=True):
        if name not in branches:
            row.append((0.0, 0.0))
            continue
        branch = branches[name]
        update = branch.scaling * branch.b @ branch.a
        row.append((float((update * grad).sum()), float(update.norm())))
    return row


def norms(grad: Tensor) -> tuple[float, float, float]:
    """Frobenius norm, sum of about the 8 largest singular values, and l1 norm of a gradient."""
    return float(grad.norm()), float(torch.svd_lowrank(grad, RANK)[1].sum()), float(grad.abs().sum())
