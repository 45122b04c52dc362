"""The one pass over a probe of the new task that measures similarity and importance of every learned task.

One forward of the base gives the features x and the direction -grad_x L in which the loss wants them; one
forward per learned task, adapters loaded one at a time, gives phi_i (Eq. 4) and lambda_i (Eq. 3).  Memory
does not grow with the zoo.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from taskit.adapter import read_config, read_tensors
from taskit.branch import attached, current_name, linear_shapes
from taskit.errors import BackboneError, ZooError
from taskit.importance import Loudness, TaskImportance
from taskit.probe import Probe, class_probes, example_features, frozen, text_probes, token_features
from taskit.similarity import TaskSimilarity, delta_cosine, drift, ideal_feature, judge, raw_cosine
from taskit.zoo import LearnedTask


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the probe says about each learned task that could be measured, in the order of the zoo."""

    raw: tuple[float, ...]  # Eq. (4) as printed
    delta: tuple[float, ...]  # Eq. (4) between updates
    drift: tuple[float, ...]  # how far each adapter moves the features, relative to their norm
    importances: tuple[TaskImportance, ...]
    skipped: tuple[tuple[str, str], ...]  # (adapter, reason)

    def similarities(self, kind: str = "delta") -> tuple[TaskSimilarity, ...]:
        """Similarity of each measured task; ``kind`` is "delta" or "raw"."""
        phis = {"raw": self.raw, "delta": self.delta}[kind]
        return judge([(i.task, i.adapter) for i in self.importances], phis, kind)


def measure(
    model: PreTrainedModel,
    batches: Sequence[Mapping[str, Tensor]],
    locations: Sequence[str],
    final_linear: nn.Linear | None,
    tasks: Sequence[LearnedTask],
    more: Sequence[Mapping[str, Tensor]] = (),
) -> Measurement:
    """Similarity and importance of each learned task for the new task that ``batches`` sample.

    ``batches`` are what the model takes, labels included: class ids (n,) for a classifier, token ids (n, t) for
    generation.  ``final_linear`` is the last linear of a classifier's head, whose input (n, d) is x; without it
    x is the input (n, t, d) of the output embedding.  ``more`` batches of a classification task only help to fit
    the head that stands for the one to come.  ``model`` is left as it was.  Adapters that cannot be
    used are skipped with their reason.  Raises DataError for a probe without a direction, see `taskit.probe`,
    and BackboneError for a model with neither head.

        found = measure(model, batches, names, head, open_zoo("zoo/adapters", backbone).tasks)
        importance = transfer(found.similarities(), found.importances, len(names))
    """
    device = next(model.parameters()).device
    moved, others = (
        [{key: value.to(device) for key, value in batch.items()} for batch in some] for some in (batches, more)
    )
    with frozen(model):
        if final_linear is not None:
            read = partial(example_features, model, final_linear)
            probes = class_probes(model, moved, final_linear, others)
        elif (embedding := model.get_output_embeddings()) is not None:
            read = partial(token_features, model, embedding)
            probes = text_probes(model, moved, embedding)
        else:
            raise BackboneError("The backbone has no head to read the features from; load it for a task.")
        return _compare(model, probes, read, locations, tasks)


def _compare(
    model: PreTrainedModel,
    probes: Sequence[Probe],
    read: Callable[[Mapping[str, Tensor]], Tensor],
    locations: Sequence[str],
    tasks: Sequence[LearnedTask],
) -> Measurement:
    shapes, current = linear_shapes(model), current_name(model)
    rows, importances, skipped = [], [], []
    for task in tasks:
        try:
            branches = read_tensors(task.folder, read_config(task.folder), shapes, current)
        except ZooError as error:
            skipped.append((task.adapter, str(error)))
            continue
        loudness = Loudness()
        with attached(model, branches, loudness.observe):
            row = _similarity_row(probes, read, loudness)
        values = loudness.values(locations)
        if not all(map(math.isfinite, (*row, *values))):
            skipped.append((task.adapter, "Its outputs on the probe are not finite; train it again."))
            continue
        rows.append(row)
        importances.append(TaskImportance(task.task, task.adapter, values))
    raw, delta, moves = zip(*rows, strict=True) if rows else ((), (), ())
    return Measurement(raw, delta, moves, tuple(importances), tuple(skipped))


def _similarity_row(
    probes: Sequence[Probe], read: Callable[[Mapping[str, Tensor]], Tensor], loudness: Loudness
) -> tuple[float, ...]:
    """(raw, delta, drift) of the adapter that is attached, averaged over the examples of all probes."""
    rows = []
    for probe in probes:
        loudness.mask = probe.inputs.get("attention_mask")
        moved = read(probe.inputs)
        raw = raw_cosine(ideal_feature(probe.x, probe.gradient, probe.mask), moved, probe.mask)
        delta = delta_cosine(probe.gradient, probe.x, moved, probe.mask)
        rows.append(torch.stack((raw, delta, drift(probe.x, moved, probe.mask))))
    return tuple(torch.cat(rows, 1).mean(1).tolist())
