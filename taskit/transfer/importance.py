"""Importance of a location for the new task: how much each learned task has made of it, Eqs. (3) and (2).

    ratio     lambda_i^k = ||x(w_i^k; d)||_1 / (||x(W_k; d)||_1 + eps)     Eq. (3)
    absolute  lambda_i^k = ||x(w_i^k; d)||_1                               Table 7, no denominator
    l2        lambda_i^k = ||x(w_i^k; d)||_2 / (||x(W_k; d)||_2 + eps)     Table 7
    blend     lambda_i^k = what a LoRA at k alone took off the loss        the default, with the trial below
              lambda_i^k = ||dW_i^k||_F, the update of the weights         where no used task knows that

    Eq. (2)   lambda_{n+1}^k = sum over used tasks i of phi_i lambda_i^k

What a LoRA gains alone, beyond what the head learns by itself, is much alike in tasks that learn anything, so that
what was measured after one was learned (``gains`` in its taskit.json) says most about the next.  So gains have a full
voice, in which similarity decides whom to hear more: the sum of their phi_i stands in place of n below.  What a LoRA
gains alone agrees with the norm of its update, and disagrees with Eq. (3), which is large where the frozen matrix
puts out little: see benchmarks/transfer.py.
blend changes Eq. (2) too.  The values of each task are divided by their mean over all locations, so that one with
large weights does not drown the others.  And the new task speaks for itself by its trial w_0 (trial.py):

    blend     lambda_{n+1}^k = sqrt( lambda_0^k + (1 / n) sum over the n used tasks of phi_i lambda_i^k )
              lambda_0^k = ( S^k ||dW_0^k||_F^2 )^(1/3), with S^k what the steps of the trial at k take off the loss

S alone is large where the gradient is, however little comes of it, and the norm alone where weights wander; what a
LoRA gains alone agrees better with both together, the norm counted twice.  The root keeps the order of the locations
and lets no single one outweigh the ranks of many.
Without gains the blend passes to what the new data say themselves as similarity falls, and with the trial a location
at which every similar task is sparse is not lost for ever.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taskit.transfer.similarity import TaskSimilarity
from taskit.zoo.lora_branch import Branch

EPS = 1e-8
UNIFORM = "uniform"  # the source where nothing has a say
TRIAL = "trial"  # the source that is the new task itself
MOST_SOURCES = 2  # named in an attribution
IMPORTANCES = ("blend", "ratio", "absolute", "l2")

Sources = Mapping[str, float]  # adapter -> its addend in the importance of a location


@dataclass(frozen=True, slots=True)
class TaskImportance:
    """lambda_i^k of one learned task for each location, in the order of the locations.

    ``measured`` says that they are gains, which were measured after the task was learned.
    """

    task: str
    adapter: str
    values: tuple[float, ...]
    measured: bool = False


class ActivationNorms:
    """Norms of x(w_i^k; d) and x(W_k; d) of one learned task over the probe batches.

    Our reading of Eq. (3): the branch with its alpha/r, the base without its bias, tokens that are no padding,
    and sums over all batches, so that the cut into batches does not matter.  ``step`` is the part of the adapter
    that is attached; the norms of its branch are smaller than the whole one's by that factor.
    """

    def __init__(self) -> None:
        self.branch: dict[str, Tensor] = {}  # (2,): sum of absolutes, sum of squares
        self.base: dict[str, Tensor] = {}
        self.mask: Tensor | None = None  # (n, t) of the batch under way
        self.step = 1.0

    def observe(self, name: str, module: nn.Module, output: Tensor, addition: Tensor) -> None:
        """Add one forward of one module; has the signature of `taskit.zoo.adapter.Observer`."""
        if isinstance(module.bias, Tensor):
            output = output - module.bias
        self.branch[name] = self.branch.get(name, 0.0) + self._sums(addition / self.step)
        self.base[name] = self.base.get(name, 0.0) + self._sums(output)

    def values(self, locations: Sequence[str], kind: str = "ratio") -> tuple[float, ...]:
        """lambda_i^k by ``kind``, ratio, absolute or l2, for each of ``locations``; 0 where this task has no LoRA."""
        return tuple(self._value(name, kind) if name in self.branch else 0.0 for name in locations)

    def _value(self, name: str, kind: str) -> float:
        branch, base = self.branch[name], self.base[name]
        if kind == "absolute":
            return float(branch[0])
        if kind == "l2":
            return float(branch[1].sqrt() / (base[1].sqrt() + EPS))
        return float(branch[0] / (base[0] + EPS))

    def _sums(self, x: Tensor) -> Tensor:
        if self.mask is not None and x.ndim == 3 and x.shape[:2] == self.mask.shape:
            x = x[self.mask.bool()]
        return torch.stack([x.abs().sum(dtype=torch.float64), x.double().square().sum()])


def update_norms(branches: Mapping[str, Branch], locations: Sequence[str]) -> tuple[float, ...]:
    """||dW^k||_F of one task for each of ``locations``; 0 where it has no LoRA."""
    return tuple(branches[name].norm if name in branches else 0.0 for name in locations)


def gains_at(gains: Sequence[tuple[str, float]], locations: Sequence[str]) -> tuple[float, ...]:
    """What a LoRA at each of ``locations`` alone took off the loss of one task; 0 where nothing was measured."""
    known = dict(gains)
    return tuple(known.get(name, 0.0) for name in locations)


def transfer(
    similarities: Sequence[TaskSimilarity],
    importances: Sequence[TaskImportance],
    own: Sequence[float],
    kind: str = "blend",
) -> tuple[Sources, ...]:
    """lambda_{n+1}^k by ``kind``, one of IMPORTANCES, as its addends, for each location.

    The first two name the same adapters in the same order; ``own`` are the lambda_0^k of the trial, of which only
    the blend makes use.  Where any used task's importance is ``measured``, the blend hears no task whose is not.
    Where nothing is transferred, because no task is used or the used ones have no LoRA at any location, the
    importance is uniform.

        transfer((TaskSimilarity("a", "a", 0.8, True),), (TaskImportance("a", "a", (0.5, 0.1)),), (1.0, 3.0), "ratio")
        # ({"a": 0.4}, {"a": 0.08})
    """
    voices = [(s, i) for s, i in zip(similarities, importances, strict=True) if s.used]
    rows = _blended(voices, own) if kind == "blend" else [(s.adapter, s.phi, i.values) for s, i in voices]
    found = tuple({name: phi * row[k] for name, phi, row in rows if row[k]} for k in range(len(own)))
    if kind == "blend":
        found = tuple(map(_rooted, found))
    return found if any(found) else ({UNIFORM: 1.0},) * len(own)


def _blended(
    voices: Sequence[tuple[TaskSimilarity, TaskImportance]], own: Sequence[float]
) -> list[tuple[str, float, Sequence[float]]]:
    """The trial, and one voice of all that are heard: a full one where gains were measured."""
    measured = [(s, i) for s, i in voices if i.measured]
    heard = measured or voices
    whole = sum(s.phi for s, _ in measured) or len(heard)
    rows = [(TRIAL, 1.0, own), *((s.adapter, s.phi / whole, i.values) for s, i in heard)]
    return [(name, phi, _normalised(row)) for name, phi, row in rows]


def _rooted(addends: Sources) -> Sources:
    """Addends in the same proportion, whose sum is the root of what it was."""
    root = math.sqrt(sum(addends.values()))
    return {name: addend / root for name, addend in addends.items()}


def _normalised(row: Sequence[float]) -> Sequence[float]:
    """With mean 1; a row of zeros stays one."""
    mean = sum(row) / len(row)
    return [value / mean for value in row] if mean else row


def attribution(sources: Sources) -> str:
    """The share of each source in an importance, the largest first: "snips 61 %, trec 30 %, 3 more 9 %"."""
    total = sum(sources.values())
    ranked = sorted(sources.items(), key=lambda item: -item[1])
    parts = [f"{name} {value / total:.0%}" for name, value in ranked[:MOST_SOURCES]]
    rest = ranked[MOST_SOURCES:]
    if rest:
        parts.append(f"{len(rest)} more {sum(value for _, value in rest) / total:.0%}")
    return ", ".join(parts)
