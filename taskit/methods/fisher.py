"""Which learned tasks are most like the new one: by diagonal Fisher information (π-Tuning Eq. 3), or by TaskIT's phi.

    F_i = (1/n) sum_j (dL_j / dW)^2      one example j at a time, at theta + w_i

The embedding is that of the projection matrices W, averaged over the inputs of each output (the filters of
Task2Vec), and not that of A and B: there the same update in a rotated basis has another embedding.  The target stands
at its trial w_0 (`taskit.trial`), and all embeddings are taken on data of the new task.  Their cosine is Task2Vec's,

    cos(F_0 / (F_0 + F_1 + eps), F_1 / (F_0 + F_1 + eps))

for each matrix, averaged over the matrices; eps is relative to the mean of F_0 + F_1, since the absolute 1e-6 of the
published code makes it a plain cosine where Fisher values are small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from taskit.adapter import read_config, read_tensors
from taskit.branch import Branch, attached, current_name, linear_shapes
from taskit.errors import PlanError
from taskit.methods.form import Ranks
from taskit.methods.method import Scene
from taskit.sensitivity import fisher_filters
from taskit.trial import run_trial

ROWS = 64  # examples of an embedding
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Expert:
    """A learned task: ``likeness`` to the new one, and its ``ranks`` at the locations."""

    adapter: str
    revision: str
    likeness: float
    ranks: Ranks


def rank_experts(scene: Scene, by: str) -> list[Expert]:
    """The learned tasks that have a LoRA at some location, the most similar first; ``by`` is fisher or similarity.

    Raises:
        PlanError: none has.
    """
    names = [place.name for place in scene.places]
    tasks = {task.adapter: task for task in scene.zoo.tasks}
    target = {}
    if by == "fisher":
        target = _embedding(scene, run_trial(scene.sight.model, scene.sight.rows, scene.sight.loss, names), names)
    experts = []
    for similarity in scene.similarity:
        branches = _branches(scene, tasks[similarity.adapter].folder)
        here = {name: branch for name, branch in branches.items() if name in names}
        if here:
            likeness = similarity.phi
            if by == "fisher":
                likeness = likeness_of(target, _embedding(scene, branches, names))
            ranks = {name: len(branch.a) for name, branch in here.items()}
            experts.append(Expert(similarity.adapter, similarity.revision, likeness, ranks))
    if not experts:
        raise PlanError(
            "No learned task of the zoo has a LoRA at a location that could be planned; choose --method taskit."
        )
    return sorted(experts, key=lambda expert: -expert.likeness)


def likeness_of(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """Mean over the matrices of Task2Vec's cosine between two embeddings with the same names."""
    return sum(task2vec_cosine(left[name], right[name]) for name in left) / len(left)


def task2vec_cosine(one: Tensor, other: Tensor) -> float:
    """Of two vectors that are not negative; 1 for multiples of each other, 0 where either vanishes.

    >>> round(task2vec_cosine(torch.tensor([1.0, 2, 0]), torch.tensor([1.0, 0, 3])), 2)
    0.2
    """
    both = one + other
    both = both + EPS * both.mean()
    return float(torch.nn.functional.cosine_similarity(one / both, other / both, dim=0).nan_to_num())


def _branches(scene: Scene, folder: str) -> Mapping[str, Branch]:
    model = scene.sight.model
    return read_tensors(folder, read_config(folder), linear_shapes(model), current_name(model))


def _embedding(scene: Scene, branches: Mapping[str, Branch], names: Sequence[str]) -> dict[str, Tensor]:
    sight = scene.sight
    with attached(sight.model, branches):
        return fisher_filters(sight.model, islice(sight.examples(), ROWS), sight.loss, names)
