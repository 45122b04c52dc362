"""The one pass over a probe of the new task that measures similarity and importance of every learned task.

One forward of the base gives the features x and the direction -grad_x L in which the loss wants them; one backward
pass gives the sensitivity of every location; a trial of a few steps gives w_0, learned on the new task itself; one
forward per learned task, adapters loaded one at a time, gives phi_i (Eq. 4) and lambda_i (Eq. 3).  Memory does not
grow with the zoo.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from taskit.adapter import read_config, read_tensors
from taskit.branch import Branch, attached, current_name, linear_shapes
from taskit.errors import BackboneError, ZooError
from taskit.importance import Loudness, TaskImportance
from taskit.probe import Probe, class_probes, example_features, frozen, stand_in_loss, text_probes, token_features
from taskit.sensitivity import Read, row_of, sensitivities
from taskit.shortlist import shortlist
from taskit.similarity import (
    SMALL,
    TaskSimilarity,
    delta_cosine,
    gradient_cosine,
    ideal_feature,
    judge,
    raw_cosine,
    slope_along,
    trial_cosine,
)
from taskit.training.step import loss_of
from taskit.trial import Loss, run_trial
from taskit.zoo import LearnedTask


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the probe says about each learned task that could be measured, in the order of the zoo."""

    similarities: tuple[TaskSimilarity, ...]
    importances: tuple[TaskImportance, ...]
    own: tuple[float, ...]  # lambda_0^k of each location for w_0, the trial on the new task itself
    sensitivity: tuple[float, ...]  # s_k of each location for the new task itself
    skipped: tuple[tuple[str, str], ...]  # (adapter, reason)


@dataclass(frozen=True, slots=True)
class Sight:
    """A frozen model, and a probe of the new task seen with it; ``rows`` are all batches, those of the probe last."""

    model: PreTrainedModel
    probes: Sequence[Probe]
    read: Read
    read_graph: Read  # the same features with their graph
    loss: Loss
    rows: Sequence[Mapping[str, Tensor]]

    def examples(self) -> Iterator[Mapping[str, Tensor]]:
        """The rows of the probe, one at a time, labels included."""
        for probe, batch in zip(self.probes, self.rows[-len(self.probes) :], strict=True):
            yield from (row_of(batch, row, len(probe.x)) for row in range(len(probe.x)))


def measure(
    model: PreTrainedModel,
    batches: Sequence[Mapping[str, Tensor]],
    locations: Sequence[str],
    final_linear: nn.Linear | None,
    tasks: Sequence[LearnedTask],
    more: Sequence[Mapping[str, Tensor]] = (),
    *,
    kind: str = "trial",
    importance: str = "blend",
) -> Measurement:
    """Similarity and importance of each learned task for the new task that ``batches`` sample.

    ``batches`` are what the model takes, labels included: class ids (n,) for a classifier, token ids (n, t) for
    generation.  ``final_linear`` is the last linear of a classifier's head, whose input (n, d) is x; without it
    x is the input (n, t, d) of the output embedding.  ``more`` batches of a classification task only help to fit
    the head that stands for the one to come.  ``kind`` is one of `taskit.similarity.MEASURES`,
    ``importance`` of `taskit.importance.IMPORTANCES`.  ``model`` is left as
    it was.  Adapters that cannot be used are skipped with their reason.  Raises DataError for a probe without a
    direction, see `taskit.probe`, and BackboneError for a model with neither head.

        found = measure(model, batches, names, head, open_zoo("zoo/adapters", backbone).tasks)
        sources = transfer(found.similarities, found.importances, found.own)
    """
    with sighted(model, batches, final_linear, more) as sight:
        return weigh(sight, locations, tasks, kind, importance)


@contextmanager
def sighted(
    model: PreTrainedModel,
    batches: Sequence[Mapping[str, Tensor]],
    final_linear: nn.Linear | None,
    more: Sequence[Mapping[str, Tensor]] = (),
) -> Iterator[Sight]:
    """The first part of `measure`, whose arguments and errors these are: the probe, with the model frozen inside."""
    device = next(model.parameters()).device
    moved, others = (
        [{key: value.to(device) for key, value in batch.items()} for batch in some] for some in (batches, more)
    )
    with frozen(model):
        if final_linear is not None:
            read: partial[Tensor] = partial(example_features, model, final_linear)
            probes, fitted = class_probes(model, moved, final_linear, others)
            loss: Loss = partial(stand_in_loss, read, fitted)
        elif (embedding := model.get_output_embeddings()) is not None:
            read = partial(token_features, model, embedding)
            probes = text_probes(model, moved, embedding)
            loss = partial(loss_of, model)
        else:
            raise BackboneError("The backbone has no head to read the features from; load it for a task.")
        yield Sight(model, probes, read, partial(read, graph=True), loss, (*others, *moved))


def weigh(
    sight: Sight, locations: Sequence[str], tasks: Sequence[LearnedTask], kind: str, importance: str
) -> Measurement:
    """The second part of `measure`: all learned tasks against what was seen."""
    model, read = sight.model, sight.read
    sensitivity = sensitivities(model, sight.probes, sight.read_graph, locations)
    tried = run_trial(model, sight.rows, sight.loss, locations)
    probes, own = _after_trial(model, sight.probes, read, tried, locations)
    similarities, importances, skipped = _compare(
        model, probes, read, locations, tasks, tried, kind, importance, sensitivity
    )
    return Measurement(similarities, importances, own, sensitivity, skipped)


def glance(sight: Sight, locations: Sequence[str], tasks: Sequence[LearnedTask]) -> Measurement:
    """All learned tasks by delta, with forward passes alone: for a budget that a trial would not fit."""
    found = _compare(sight.model, sight.probes, sight.read, locations, tasks, {}, "delta", "ratio", ())
    similarities, importances, skipped = found
    return Measurement(similarities, importances, (0.0,) * len(locations), (), skipped)


def _after_trial(
    model: PreTrainedModel,
    probes: Sequence[Probe],
    read: Read,
    tried: Mapping[str, Branch],
    locations: Sequence[str],
) -> tuple[list[Probe], tuple[float, ...]]:
    loudness = Loudness()
    with attached(model, tried, loudness.observe):
        probes = [replace(probe, tried=_moved(probe, read, loudness)) for probe in probes]
    return probes, loudness.values(locations)


def _compare(
    model: PreTrainedModel,
    probes: Sequence[Probe],
    read: Read,
    locations: Sequence[str],
    tasks: Sequence[LearnedTask],
    tried: Mapping[str, Branch],
    kind: str,
    importance: str,
    sensitivity: tuple[float, ...],
) -> tuple[tuple[TaskSimilarity, ...], tuple[TaskImportance, ...], tuple[tuple[str, str], ...]]:
    shapes, current = linear_shapes(model), current_name(model)
    chosen, left_out = shortlist(tasks, tried, shapes, current)
    phis, importances, skipped = [], [], [*left_out]
    for task in chosen:
        try:
            branches = read_tensors(task.folder, read_config(task.folder), shapes, current)
        except ZooError as error:
            skipped.append((task.adapter, str(error)))
            continue
        loudness = Loudness()
        phi = _SIMILARITY[kind](model, probes, read, branches, loudness, math.sqrt(sum(sensitivity)))
        values = loudness.values(locations, importance)
        if not all(map(math.isfinite, (phi, *values))):
            skipped.append((task.adapter, "Its outputs on the probe are not finite; train it again."))
            continue
        phis.append(phi)
        importances.append(TaskImportance(task.task, task.adapter, values))
    found = judge([(one.task, one.adapter) for one in importances], phis, kind)
    return found, tuple(importances), tuple(skipped)


def _by_features(
    compare: Callable[[Probe, Tensor], Tensor],
    model: PreTrainedModel,
    probes: Sequence[Probe],
    read: Read,
    branches: Mapping[str, Branch],
    loudness: Loudness,
    _: float,
) -> float:
    """phi by the features with the whole adapter, averaged over the examples of all probes."""
    with attached(model, branches, loudness.observe):
        rows = [compare(probe, _moved(probe, read, loudness)) for probe in probes]
    return float(torch.cat(rows).mean())


def _by_gradient(
    model: PreTrainedModel,
    probes: Sequence[Probe],
    read: Read,
    branches: Mapping[str, Branch],
    loudness: Loudness,
    gradient_norm: float,
) -> float:
    """phi by a small step along the adapter; how loud it is shows in the same step."""
    small = {name: branch.scaled(SMALL) for name, branch in branches.items()}
    loudness.step = SMALL
    with attached(model, small, loudness.observe):
        slope = sum(slope_along(p.gradient, p.x, _moved(p, read, loudness), p.mask) for p in probes)
    update_norm = math.sqrt(sum(branch.norm**2 for branch in branches.values()))
    return gradient_cosine(slope, update_norm, gradient_norm)


def _moved(probe: Probe, read: Read, loudness: Loudness) -> Tensor:
    loudness.mask = probe.inputs.get("attention_mask")
    return read(probe.inputs)


def _raw(probe: Probe, moved: Tensor) -> Tensor:
    return raw_cosine(ideal_feature(probe.x, probe.gradient, probe.mask), moved, probe.mask)


def _delta(probe: Probe, moved: Tensor) -> Tensor:
    return delta_cosine(probe.gradient, probe.x, moved, probe.mask)


def _trial(probe: Probe, moved: Tensor) -> Tensor:
    assert probe.tried is not None
    return trial_cosine(probe.tried, probe.x, moved, probe.mask)


_SIMILARITY = {
    "raw": partial(_by_features, _raw),
    "delta": partial(_by_features, _delta),
    "gradient": _by_gradient,
    "trial": partial(_by_features, _trial),
}
