"""The one pass over a probe of the new task that measures similarity and importance of every learned task.

One forward of the base gives the features x and the direction -grad_x L in which the loss wants them; one
forward per learned task, adapters loaded one at a time, gives phi_i (Eq. 4) and lambda_i (Eq. 3).  Memory
does not grow with the zoo.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taskit.adapter import attached, linear_shapes, read_config, read_tensors
from taskit.errors import DataError, ZooError
from taskit.head import fit_head
from taskit.importance import Loudness, TaskImportance
from taskit.similarity import TaskSimilarity, delta_cosine, ideal_feature, judge, raw_cosine
from taskit.zoo import LearnedTask

FOLDS = 2


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the probe says about each learned task that could be measured, in the order of the zoo."""

    raw: tuple[float, ...]  # Eq. (4) as printed
    delta: tuple[float, ...]  # Eq. (4) between updates
    drift: tuple[float, ...]  # ||x(theta + w_i) - x(theta)|| / ||x(theta)||: how far the adapter moves the features
    importances: tuple[TaskImportance, ...]
    skipped: tuple[tuple[str, str], ...]  # (adapter, reason)

    def similarities(self, kind: str = "delta") -> tuple[TaskSimilarity, ...]:
        """Similarity of each measured task, ``kind`` being "delta" or "raw"."""
        phis = {"raw": self.raw, "delta": self.delta}[kind]
        return judge([(i.task, i.adapter) for i in self.importances], phis, kind)


@dataclass(frozen=True, slots=True)
class _Probe:
    """One batch of the new task: its inputs, x(theta; d) and grad_x L of one shape, and what of x counts."""

    inputs: Mapping[str, Tensor]
    x: Tensor
    gradient: Tensor
    mask: Tensor | None


def measure(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    locations: Sequence[str],
    final_linear: nn.Linear | None,
    tasks: Sequence[LearnedTask],
) -> Measurement:
    """Similarity and importance of each learned task for the new task that ``batches`` sample.

    ``batches`` are what the model takes, labels included: (n,) class ids for a classifier, token ids for
    generation.  ``final_linear`` is the last linear of a classifier's head, whose input (n, d) is x; without it
    x is the input (n, t, d) of the output embedding.  ``model`` is left as it was.  Adapters that cannot be
    used are skipped with their reason.  Raises DataError for labels outside the head and for a single class.
    """
    with _frozen(model):
        device = next(model.parameters()).device
        moved = [{key: value.to(device) for key, value in batch.items()} for batch in batches]
        probes = _text_probes(model, moved) if final_linear is None else _class_probes(model, moved, final_linear)
        reader = model.get_output_embeddings() if final_linear is None else final_linear
        return _compare(model, probes, locations, reader, tasks)


def cross_fitted_gradient(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """grad_x of the mean cross-entropy at ``x`` (n, d), under closed-form heads that never saw the example.

    A head fitted to the very examples can explain them all, and its gradient vanishes; so each half of the
    probe, every class split evenly, gets the head of the other half (our reading of "the decoder").
    """
    gradient = torch.zeros_like(x)
    turn = torch.empty_like(labels)
    turn[labels.argsort(stable=True)] = torch.arange(len(labels), device=labels.device)
    for fold in range(FOLDS):
        held_out = turn % FOLDS == fold
        weight, bias = fit_head(x[~held_out], labels[~held_out], classes)
        error = F.softmax(F.linear(x[held_out], weight, bias), -1) - F.one_hot(labels[held_out], classes)
        gradient[held_out] = (error @ weight / len(x)).to(x.dtype)
    return gradient


def _class_probes(model: nn.Module, batches: Sequence[dict[str, Tensor]], head: nn.Linear) -> list[_Probe]:
    labels = torch.cat([batch["labels"] for batch in batches])
    _check_labels(labels, head.out_features)
    # The labels stay out of the forward: the head that exists is random, and so is any loss of it.
    inputs = [{key: value for key, value in batch.items() if key != "labels"} for batch in batches]
    xs = [_feature(model, batch, head) for batch in inputs]
    gradient = cross_fitted_gradient(torch.cat(xs), labels, head.out_features)
    parts = gradient.split([len(x) for x in xs])
    return [_Probe(batch, x, part, None) for batch, x, part in zip(inputs, xs, parts, strict=True)]


def _check_labels(labels: Tensor, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"The probe holds a label outside 0..{classes - 1}; give the head one output for each label.")
    if labels.unique().numel() < 2:
        raise DataError(
            "The probe holds a single class, which gives no direction; draw it from at least two classes."
        )


def _text_probes(model: nn.Module, batches: Sequence[dict[str, Tensor]]) -> list[_Probe]:
    probes = []
    for batch in batches:
        with _captured(model.get_output_embeddings(), leaf=True) as inputs:
            loss = model(**batch).loss
        (gradient,) = torch.autograd.grad(loss, inputs[0])
        x = inputs[0].detach()
        probes.append(_Probe(batch, x, gradient, _text_mask(model, batch, x)))
    return probes


def _text_mask(model: nn.Module, batch: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
    """What of x (n, t, d) is no padding; a decoder that reads an encoder pads its labels, not its attention."""
    mask = batch["labels"] != -100 if model.config.is_encoder_decoder else batch.get("attention_mask")
    return mask if mask is not None and mask.shape == x.shape[:2] else None


def _feature(model: nn.Module, inputs: Mapping[str, Tensor], head: nn.Module) -> Tensor:
    """x: what ``head`` reads.  For a classifier (n, d); decoders score every token and keep the last that counts."""
    with torch.no_grad(), _captured(head) as seen:
        model(**inputs)
    x = seen[0]
    mask = inputs.get("attention_mask")
    if x.ndim == 3 and "labels" not in inputs:
        last = (torch.arange(x.shape[1], device=x.device) * (1 if mask is None else mask)).argmax(-1, keepdim=True)
        x = x[torch.arange(len(x), device=x.device), last.expand(len(x), 1).squeeze(1)]
    return x


def _compare(
    model: nn.Module,
    probes: Sequence[_Probe],
    locations: Sequence[str],
    reader: nn.Module,
    tasks: Sequence[LearnedTask],
) -> Measurement:
    shapes, measured, importances, skipped = linear_shapes(model), [], [], []
    for task in tasks:
        try:
            branches = read_tensors(task.folder, read_config(task.folder), shapes)
        except ZooError as error:
            skipped.append((task.adapter, str(error)))
            continue
        loudness = Loudness()
        with attached(model, branches, loudness.observe):
            phis = _phis(model, probes, reader, loudness)
        values = loudness.values(locations)
        if not all(map(math.isfinite, (*phis, *values))):
            skipped.append((task.adapter, "Its outputs on the probe are not finite; train it again."))
            continue
        measured.append(phis)
        importances.append(TaskImportance(task.task, task.adapter, values))
    raw, delta, drift = zip(*measured, strict=True) if measured else ((), (), ())
    return Measurement(raw, delta, drift, tuple(importances), tuple(skipped))


def _phis(
    model: nn.Module, probes: Sequence[_Probe], reader: nn.Module, loudness: Loudness
) -> tuple[float, float, float]:
    """(raw, delta, drift) of the adapter that is attached, averaged over the examples of all probes."""
    rows = []
    for probe in probes:
        loudness.mask = probe.inputs.get("attention_mask")
        moved = _feature(model, probe.inputs, reader)
        raw = raw_cosine(ideal_feature(probe.x, probe.gradient), moved, probe.mask)
        delta = delta_cosine(probe.gradient, probe.x, moved, probe.mask)
        drift = _norm(moved - probe.x, probe.mask) / _norm(probe.x, probe.mask)
        rows.append(torch.stack((raw, delta, drift)))
    return tuple(torch.cat(rows, 1).mean(1).tolist())


def _norm(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        x = torch.where(mask.bool()[..., None], x, 0.0)
    return x.double().flatten(1).norm(dim=1)


@contextmanager
def _captured(module: nn.Module, *, leaf: bool = False) -> Iterator[list[Tensor]]:
    """The inputs of ``module`` in the forwards inside; as a ``leaf`` they end the graph, so a backward stops there."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = inputs[0].detach()
        seen.append(x.requires_grad_() if leaf else x)
        return (seen[-1], *inputs[1:])

    handle = module.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Dropout off and no gradient of any parameter, so that the one graph is from x to the loss; undone after."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
