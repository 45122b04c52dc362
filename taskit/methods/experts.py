"""Learned adapters by the name that a plan gives them, ready to be written into a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from taskit.backbone.loading import empty_model
from taskit.errors import PlanError
from taskit.zoo.adapter import read_config, read_tensors
from taskit.zoo.lora_branch import Branch, current_name, linear_shapes
from taskit.zoo.zoo import find_zoo

if TYPE_CHECKING:
    from taskit.planning.plan import Plan


def load_experts(plan: "Plan", zoo: str | None, adapters: Sequence[tuple[str, str]]) -> list[dict[str, Branch]]:
    """The branches of each (adapter, revision) by location, from the zoo that they were chosen from.

    Raises:
        PlanError: an adapter is not there any more, or not in that revision.
        ZooError: its files can no longer be used.
    """
    tasks = {(task.adapter, task.revision): task for task in find_zoo(zoo, plan.backbone).tasks}
    gone = next((name for name, revision in adapters if (name, revision) not in tasks), None)
    if gone is not None:
        where = zoo or "the bundled zoo"
        raise PlanError(f"The plan mixes the adapter {gone}, which {where} lacks; bring it back, or plan again.")
    base = empty_model(plan.backbone, task=plan.data.task, labels=plan.data.labels)
    shapes, current = linear_shapes(base), current_name(base)
    folders = [tasks[key].folder for key in adapters]
    return [read_tensors(folder, read_config(folder), shapes, current) for folder in folders]
