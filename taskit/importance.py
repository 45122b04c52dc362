"""Importance of a location for the new task: how loud each learned LoRA branch is there, Eqs. (3) and (2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taskit.similarity import TaskSimilarity

EPS = 1e-8
UNIFORM = "uniform"  # the source where no learned task has a say

Sources = Mapping[str, float]  # adapter -> its addend in the importance of a location


@dataclass(frozen=True, slots=True)
class TaskImportance:
    """lambda_i^k of one learned task for each location, in the order of the locations."""

    task: str
    adapter: str
    values: tuple[float, ...]


class Loudness:
    """Sums of ||x(w_i^k; d)||_1 and ||x(W_k; d)||_1 of one learned task over the probe batches.

    Our reading of Eq. (3): the branch with its alpha/r, the base without its bias, tokens that are no padding,
    and a ratio of sums, so that the cut into batches does not matter.  ``step`` is the part of the adapter that is
    attached; its branch is as loud as the whole one's by that much less.
    """

    def __init__(self) -> None:
        self.branch: dict[str, Tensor] = {}
        self.base: dict[str, Tensor] = {}
        self.mask: Tensor | None = None  # (n, t) of the batch under way
        self.step = 1.0

    def observe(self, name: str, module: nn.Module, output: Tensor, addition: Tensor) -> None:
        """Add one forward of one module; has the signature of `taskit.adapter.Observer`."""
        if isinstance(module.bias, Tensor):
            output = output - module.bias
        self.branch[name] = self.branch.get(name, 0.0) + self._l1(addition)
        self.base[name] = self.base.get(name, 0.0) + self._l1(output)

    def values(self, locations: Sequence[str]) -> tuple[float, ...]:
        """Eq. (3): lambda_i^k for each of ``locations``; 0 where this task has no LoRA."""
        return tuple(
            float(self.branch[name] / self.step / (self.base[name] + EPS)) if name in self.branch else 0.0
            for name in locations
        )

    def _l1(self, x: Tensor) -> Tensor:
        if self.mask is not None and x.ndim == 3 and x.shape[:2] == self.mask.shape:
            x = x[self.mask.bool()]
        return x.abs().sum(dtype=torch.float64)


def transfer(
    similarities: Sequence[TaskSimilarity], importances: Sequence[TaskImportance], locations: int
) -> tuple[Sources, ...]:
    """Eq. (2): lambda_{n+1}^k = sum over used tasks of phi_i lambda_i^k, as its addends, for each location.

    Both sequences name the same adapters in the same order.  Where nothing is transferred, because no task is
    used or the used ones have no LoRA at any location, the importance is uniform.

        transfer((TaskSimilarity("a", "a", 0.8, True),), (TaskImportance("a", "a", (0.5, 0.1)),), 2)
        # ({"a": 0.4}, {"a": 0.08})
    """
    used = [(s, i.values) for s, i in zip(similarities, importances, strict=True) if s.used]
    found = tuple({s.adapter: s.phi * row[k] for s, row in used if row[k]} for k in range(locations))
    return found if any(found) else ({UNIFORM: 1.0},) * locations
