"""TGLoRA's tree: which tasks share their pairs at which depth level (arXiv 2509.19602, AISTATS 2026).

    S(t, t') = E over x of t, x' of t' of cos(g / (|g| + |g'|), g' / (|g| + |g'|)),   g = grad of the shared LoRA

with |.| and the division element by element, after Task2Vec, and 0 / 0 = 0.  Groups are cut from one average-linkage
clustering on 1 - S (our reading; the paper leaves the algorithm open): whatever the numbers of groups, those of a
deeper level refine those of the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taskit.errors import PlanError

Groups = tuple[tuple[int, ...], ...]  # a partition of the tasks, each group sorted, groups by their first task


@dataclass(frozen=True, slots=True)
class TaskTree:
    """``similarity[t][u]`` is S of tasks t and u; ``stages[s]`` the groups of depth level s, the one
    nearest the input first."""

    tasks: tuple[str, ...]
    similarity: tuple[tuple[float, ...], ...]
    stages: tuple[Groups, ...]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TaskTree":
        """Rebuild a tree from its `asdict`, also after a trip through a file."""
        stages = tuple(tuple(map(tuple, groups)) for groups in values["stages"])
        return cls(tuple(values["tasks"]), tuple(map(tuple, values["similarity"])), stages)


def gradient_similarity(g: Tensor, h: Tensor) -> float:
    """cos(g / (|g| + |h|), h / (|g| + |h|)) of two flat gradients; 0 where either vanishes, or nothing overlaps."""
    scale = (g.abs() + h.abs()).clamp_min(torch.finfo(g.dtype).tiny)  # 0 / 0 = 0
    left, right = (g / scale).double(), (h / scale).double()
    return float(left @ right / (left.norm() * right.norm()).clamp_min(1e-300))


def similarity_matrix(gradients: Sequence[Sequence[Tensor]]) -> np.ndarray:
    """S (T, T), its diagonal 1, from a few flat gradients of each task, one a batch: means over pairs of batches."""
    count = len(gradients)
    found = np.eye(count)
    for t in range(count):
        for u in range(t + 1, count):
            found[t, u] = found[u, t] = np.mean(
                [gradient_similarity(g, h) for g in gradients[t] for h in gradients[u]]
            )
    return found


def cut(similarity: np.ndarray, groups: Sequence[int]) -> tuple[Groups, ...]:
    """The tasks in ``groups[s]`` groups at depth level s, each level a refinement of the one before."""
    from sklearn.cluster import AgglomerativeClustering

    levels = []
    for number in groups:
        clustering = AgglomerativeClustering(n_clusters=number, metric="precomputed", linkage="average")
        labels = clustering.fit_predict(1 - similarity).tolist()
        members = {label: tuple(t for t, one in enumerate(labels) if one == label) for label in labels}
        levels.append(tuple(sorted(members.values())))
    return tuple(levels)


def require_groups(groups: Sequence[int], tasks: int, blocks: int) -> None:
    """Raises PlanError, one sentence, for numbers of groups that make no tree of ``tasks`` over ``blocks``."""
    written = ",".join(map(str, groups))
    if tasks < 2:
        raise PlanError("Only one dataset is given; give two or more to train together, or use taskit plan.")
    if not groups or min(groups) < 1:
        raise PlanError(f"--groups {written} holds a number below 1; write for example 1,1,2,{tasks}.")
    if any(later < earlier for earlier, later in pairwise(groups)):
        raise PlanError(f"--groups {written} decreases, but what has parted stays apart; write it in rising order.")
    if max(groups) > tasks:
        raise PlanError(f"--groups {written} parts {tasks} tasks into {max(groups)} groups; give at most {tasks}.")
    if len(groups) > blocks:
        raise PlanError(f"--groups {written} has {len(groups)} stages for {blocks} blocks; give at most {blocks}.")


def usual_groups(tasks: int, blocks: int) -> tuple[int, ...]:
    """All together for half of the depth, then half as many groups as tasks, then each alone: the paper's 1,1,2,4."""
    return (1, 1, max(tasks // 2, 1), tasks)[-min(4, blocks) :]


def level_of(block: int, blocks: int, levels: int) -> int:
    """The depth level of a block; levels are runs of blocks of equal length as far as possible."""
    return block * levels // blocks
