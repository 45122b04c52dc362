"""Which learned tasks are most like the new one: by `taskit.transfer.fisher`, as π-Tuning asks, or by TaskIT's phi."""

from collections.abc import Mapping
from dataclasses import dataclass

from taskit.errors import PlanError
from taskit.methods.method import Scene
from taskit.step.parametrization import Ranks
from taskit.transfer.fisher import embed, likeness_of
from taskit.zoo.adapter import read_config, read_tensors
from taskit.zoo.lora_branch import Branch, current_name, linear_shapes


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
    sight, target = scene.sight, {}
    if by == "fisher":
        target = embed(sight.model, sight.examples(), sight.loss, sight.trial.branches, names)
    experts = []
    for similarity in scene.similarity:
        branches = _branches(scene, tasks[similarity.adapter].folder)
        here = {name: branch for name, branch in branches.items() if name in names}
        if here:
            likeness = similarity.phi
            if by == "fisher":
                likeness = likeness_of(target, embed(sight.model, sight.examples(), sight.loss, branches, names))
            ranks = {name: len(branch.a) for name, branch in here.items()}
            experts.append(Expert(similarity.adapter, similarity.revision, likeness, ranks))
    if not experts:
        raise PlanError(
            "No learned task of the zoo has a LoRA at a location that could be planned; choose --method taskit."
        )
    return sorted(experts, key=lambda expert: -expert.likeness)


def _branches(scene: Scene, folder: str) -> Mapping[str, Branch]:
    model = scene.sight.model
    return read_tensors(folder, read_config(folder), linear_shapes(model), current_name(model))
