"""The one pass over a probe of the new task that measures similarity and importance of every learned task.

One forward of the base gives the features x and the direction -grad_x L in which the loss wants them; a trial of
some steps gives w_0, learned on the new task itself, and lambda_0 of every location; one forward per learned task,
adapters loaded one at a time, gives phi_i (Eq. 4) and lambda_i (Eq. 3).  Memory does not grow with the zoo.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from taskit.errors import ZooError
from taskit.transfer.fisher import Embedding, embed, likeness_of
from taskit.transfer.importance import ActivationNorms, TaskImportance, gains_at, update_norms
from taskit.transfer.probe import Probe
from taskit.transfer.probe_context import ProbeContext, open_probe
from taskit.transfer.sensitivity import sensitivities
from taskit.transfer.similarity import (
    SMALL,
    TaskSimilarity,
    delta_cosine,
    displacement,
    gradient_cosine,
    ideal_feature,
    judge,
    raw_cosine,
    slope_along,
    trial_similarities,
)
from taskit.zoo.adapter import read_config, read_tensors
from taskit.zoo.lora_branch import Branch, attached, current_name, linear_shapes
from taskit.zoo.shortlist import shortlist
from taskit.zoo.zoo import LearnedTask


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the probe says about each learned task that could be measured, in the order of the zoo."""

    similarities: tuple[TaskSimilarity, ...]
    importances: tuple[TaskImportance, ...]
    own: tuple[float, ...]  # lambda_0^k of each location for w_0, the trial on the new task itself, up to a factor
    skipped: tuple[tuple[str, str], ...]  # (adapter, reason)


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
    the head that stands for the one to come.  ``kind`` is one of `taskit.transfer.similarity.MEASURES`,
    ``importance`` of `taskit.transfer.importance.IMPORTANCES`.  ``model`` is left as
    it was.  Adapters that cannot be used are skipped with their reason.  Raises DataError for a probe without a
    direction, see `taskit.transfer.probe`, and BackboneError for a model with neither head.

        found = measure(model, batches, names, head, open_zoo("zoo/adapters", backbone).tasks)
        sources = transfer(found.similarities, found.importances, found.own)
    """
    with open_probe(model, batches, locations, final_linear, more) as probe_context:
        return measure_with_trial(probe_context, tasks, kind, importance)


def measure_with_trial(
    probe_context: ProbeContext, tasks: Sequence[LearnedTask], kind: str, importance: str
) -> Measurement:
    """The second part of `measure`: all learned tasks against the probe."""
    comparison, tried = _Comparison(probe_context), probe_context.trial.branches
    target_update = comparison.rows(tried, None, _displacement)
    chosen, left_out = shortlist(tasks, tried, linear_shapes(probe_context.model), current_name(probe_context.model))
    compared = _compare(comparison, chosen, kind, importance)
    importances = tuple(one for one, _ in compared.tried)
    rows = [rows for _, rows in compared.tried]
    phis = (
        trial_similarities(target_update, rows, probe_context.unexplained)
        if kind == "trial"
        else [float(row.mean()) for row in rows]
    )
    found = judge([(one.task, one.adapter) for one in importances], phis, kind)
    return Measurement(
        found, importances, probe_context.trial.importance(probe_context.locations), (*left_out, *compared.skipped)
    )


def measure_forward_only(probe_context: ProbeContext, tasks: Sequence[LearnedTask]) -> Measurement:
    """All learned tasks by delta, with forward passes alone: for a budget that a trial would not fit."""
    found = _compare(_Comparison(probe_context), tasks, "delta", "ratio")
    importances = tuple(one for one, _ in found.tried)
    phis = [float(rows.mean()) for _, rows in found.tried]
    similarities = judge([(one.task, one.adapter) for one in importances], phis, "delta")
    return Measurement(similarities, importances, (0.0,) * len(probe_context.locations), found.skipped)


@dataclass(frozen=True)
class _Comparison:
    """Tries adapters on all probes; ``activation_norms`` is None where importance does not need them."""

    probe_context: ProbeContext

    def rows(
        self,
        branches: Mapping[str, Branch],
        activation_norms: ActivationNorms | None,
        compare: Callable[[Probe, Tensor], Tensor],
    ) -> Tensor:
        """What ``compare`` makes of the features with the adapter, (n,) or (n, d) over the examples of all probes."""
        with attached(self.probe_context.model, branches, activation_norms and activation_norms.observe):
            return torch.cat(
                [compare(probe, self._moved(probe, activation_norms)) for probe in self.probe_context.probes]
            )

    def along(self, branches: Mapping[str, Branch], activation_norms: ActivationNorms | None) -> Tensor:
        """phi of gradient (1,) by a small step along the adapter; activation norms are observed in that step."""
        small = {name: branch.scaled(SMALL) for name, branch in branches.items()}
        if activation_norms:
            activation_norms.step = SMALL
        with attached(self.probe_context.model, small, activation_norms and activation_norms.observe):
            slope = sum(
                slope_along(p.gradient, p.x, self._moved(p, activation_norms), p.mask)
                for p in self.probe_context.probes
            )
        update_norm = math.sqrt(sum(branch.norm**2 for branch in branches.values()))
        return torch.tensor([gradient_cosine(slope, update_norm, self._gradient_norm)])

    @cached_property
    def _gradient_norm(self) -> float:
        """||grad_W L||, the root mean square over examples."""
        probe_context = self.probe_context
        return math.sqrt(
            sum(
                sensitivities(
                    probe_context.model, probe_context.probes, probe_context.read_graph, probe_context.locations
                )
            )
        )

    def fisher(self, branches: Mapping[str, Branch], activation_norms: ActivationNorms | None) -> Tensor:
        """phi of fisher (1,); activation norms are observed in a separate forward."""
        if activation_norms:
            self.rows(branches, activation_norms, _displacement)
        return torch.tensor([likeness_of(self._target, self._embedding(branches))])

    @cached_property
    def _target(self) -> Embedding:
        return self._embedding(self.probe_context.trial.branches)

    def _embedding(self, branches: Mapping[str, Branch]) -> Embedding:
        probe_context = self.probe_context
        return embed(
            probe_context.model, probe_context.examples(), probe_context.loss, branches, probe_context.locations
        )

    def _moved(self, probe: Probe, activation_norms: ActivationNorms | None) -> Tensor:
        if activation_norms:
            activation_norms.mask = probe.inputs.get("attention_mask")
        return self.probe_context.read(probe.inputs)


@dataclass(frozen=True, slots=True)
class _Compared:
    """Each learned task that could be tried, with its rows of similarity, and the others with the reason."""

    tried: tuple[tuple[TaskImportance, Tensor], ...]
    skipped: tuple[tuple[str, str], ...]


def _compare(comparison: _Comparison, tasks: Sequence[LearnedTask], kind: str, importance: str) -> _Compared:
    model, locations = comparison.probe_context.model, comparison.probe_context.locations
    shapes, current = linear_shapes(model), current_name(model)
    found, skipped = [], []
    for task in tasks:
        try:
            branches = read_tensors(task.folder, read_config(task.folder), shapes, current)
        except ZooError as error:
            skipped.append((task.adapter, str(error)))
            continue
        activation_norms = None if importance == "blend" else ActivationNorms()
        rows = _SIMILARITY[kind](comparison, branches, activation_norms)
        one = _importance_of(task, branches, locations, activation_norms, importance)
        if not (bool(rows.isfinite().all()) and all(map(math.isfinite, one.values))):
            skipped.append((task.adapter, "Its outputs on the probe are not finite; train it again."))
            continue
        found.append((one, rows))
    return _Compared(tuple(found), tuple(skipped))


def _importance_of(
    task: LearnedTask,
    branches: Mapping[str, Branch],
    locations: Sequence[str],
    activation_norms: ActivationNorms | None,
    kind: str,
) -> TaskImportance:
    """Its activation norms where they were observed; else its measured gains, or the norms of its updates."""
    if activation_norms:
        return TaskImportance(task.task, task.adapter, activation_norms.values(locations, kind))
    gains = gains_at(task.gains, locations)
    if any(gains):
        return TaskImportance(task.task, task.adapter, gains, measured=True)
    return TaskImportance(task.task, task.adapter, update_norms(branches, locations))


def _raw(probe: Probe, moved: Tensor) -> Tensor:
    return raw_cosine(ideal_feature(probe.x, probe.gradient, probe.mask), moved, probe.mask)


def _delta(probe: Probe, moved: Tensor) -> Tensor:
    return delta_cosine(probe.gradient, probe.x, moved, probe.mask)


def _displacement(probe: Probe, moved: Tensor) -> Tensor:
    return displacement(probe.x, moved, probe.mask).half()  # kept for every task: memory may not grow with the zoo


_SIMILARITY: Mapping[str, Callable[[_Comparison, Mapping[str, Branch], ActivationNorms | None], Tensor]] = {
    "raw": partial(_Comparison.rows, compare=_raw),
    "delta": partial(_Comparison.rows, compare=_delta),
    "gradient": _Comparison.along,
    "fisher": _Comparison.fisher,
    "trial": partial(_Comparison.rows, compare=_displacement),
}
