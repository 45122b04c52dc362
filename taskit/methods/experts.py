"""Learned adapters as experts: which are most like the new task, and their weights by location."""

from collections.abc import Sequence
from dataclasses import dataclass

from taskit.backbone.loading import Backbone, empty_model
from taskit.data.info import DataInfo
from taskit.errors import PlanError
from taskit.methods.method import MethodContext
from taskit.step.parametrization import Ranks
from taskit.transfer.fisher import embed, likeness_of
from taskit.zoo.adapter import read_config, read_tensors
from taskit.zoo.lora_branch import Branch, current_name, linear_shapes
from taskit.zoo.zoo import find_zoo


@dataclass(frozen=True, slots=True)
class Expert:
    """A learned task: ``likeness`` to the new one, and its ``ranks`` at the locations."""

    adapter: str
    revision: str
    likeness: float
    ranks: Ranks


def rank_experts(context: MethodContext, by: str) -> list[Expert]:
    """The learned tasks that have a LoRA at some location, the most similar first.

    ``by`` is fisher (`taskit.transfer.fisher`, as in π-Tuning) or similarity (TaskIT's phi).

    Raises:
        PlanError: none has.
    """
    names = [place.name for place in context.places]
    tasks = {task.adapter: task for task in context.zoo.tasks}
    probe, target = context.probe_context, {}
    shapes, current = linear_shapes(probe.model), current_name(probe.model)
    if by == "fisher":
        target = embed(probe.model, probe.examples(), probe.loss, probe.trial.branches, names)
    experts = []
    for similarity in context.similarity:
        folder = tasks[similarity.adapter].folder
        branches = read_tensors(folder, read_config(folder), shapes, current)
        here = {name: branch for name, branch in branches.items() if name in names}
        if here:
            likeness = similarity.phi
            if by == "fisher":
                likeness = likeness_of(target, embed(probe.model, probe.examples(), probe.loss, branches, names))
            ranks = {name: len(branch.a) for name, branch in here.items()}
            experts.append(Expert(similarity.adapter, similarity.revision, likeness, ranks))
    if not experts:
        raise PlanError(
            "No learned task of the zoo has a LoRA at a location that could be planned; choose --method taskit."
        )
    return sorted(experts, key=lambda expert: -expert.likeness)


def load_experts(
    backbone: Backbone, data: DataInfo, zoo: str | None, adapters: Sequence[tuple[str, str]]
) -> list[dict[str, Branch]]:
    """The branches of each (adapter, revision) by location, from the zoo that they were chosen from.

    Raises:
        PlanError: an adapter is not there any more, or not in that revision.
        ZooError: its files can no longer be used.
    """
    tasks = {(task.adapter, task.revision): task for task in find_zoo(zoo, backbone).tasks}
    gone = next((name for name, revision in adapters if (name, revision) not in tasks), None)
    if gone is not None:
        where = zoo or "the bundled zoo"
        raise PlanError(f"The plan mixes the adapter {gone}, which {where} lacks; bring it back, or plan again.")
    base = empty_model(backbone, task=data.task, labels=data.labels)
    shapes, current = linear_shapes(base), current_name(base)
    folders = [tasks[key].folder for key in adapters]
    return [read_tensors(folder, read_config(folder), shapes, current) for folder in folders]
