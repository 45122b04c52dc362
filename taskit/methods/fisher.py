"""Which learned tasks are most like the new one: by `transfer.fisher`, as π-Tuning asks, or by TaskIT's phi."""

from collections.abc import Mapping
from dataclasses import dataclass

from taskit.errors import PlanError
from taskit.methods.method import MethodContext
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


def rank_experts(context: MethodContext, by: str) -> list[Expert]:
    """The learned tasks that have a LoRA at some location, the most similar first; ``by`` is fisher or similarity.

    Raises:
        PlanError: none has.
    """
    names = [place.name for place in context.places]
    tasks = {task.adapter: task for task in context.zoo.tasks}
    probe_context, target = context.probe_context, {}
    if by == "fisher":
        target = embed(
            probe_context.model, probe_context.examples(), probe_context.loss, probe_context.trial.branches, names
        )
    experts = []
    for similarity in context.similarity:
        branches = _branches(context, tasks[similarity.adapter].folder)
        here = {name: branch for name, branch in branches.items() if name in names}
        if here:
            likeness = similarity.phi
            if by == "fisher":
                likeness = likeness_of(
                    target, embed(probe_context.model, probe_context.examples(), probe_context.loss, branches, names)
                )
            ranks = {name: len(branch.a) for name, branch in here.items()}
            experts.append(Expert(similarity.adapter, similarity.revision, likeness, ranks))
    if not experts:
        raise PlanError(
            "No learned task of the zoo has a LoRA at a location that could be planned; choose --method taskit."
        )
    return sorted(experts, key=lambda expert: -expert.likeness)


def _branches(context: MethodContext, folder: str) -> Mapping[str, Branch]:
    model = context.probe_context.model
    return read_tensors(folder, read_config(folder), linear_shapes(model), current_name(model))
