"""The peak of joint training, rehearsed on tensors without memory as a single task's is (taskit.memory.rehearsal)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch

from taskit.errors import PlanError, first_line
from taskit.memory.rehearsal import step_of
from taskit.step.recompute import use_checkpointing
from taskit.together.task_tree import TaskTree
from taskit.together.tglora import JointModel, join, joint_loss, share_backbone, together

if TYPE_CHECKING:
    from taskit.planning.step_spec import StepSpec


def rehearse_joint(step_specs: "Sequence[StepSpec]", ranks: Mapping[str, int], tree: TaskTree) -> int:
    """Peak bytes of a step with a batch of each of ``step_specs``, one for each task; ``ranks`` are by location.

    Raises:
        PlanError: the model cannot be traced without numbers.
    """
    conditions = replace(step_specs[0].conditions, evaluation=None)
    try:
        joint = _empty(step_specs, ranks, tree)
        if conditions.gradient_checkpointing:
            use_checkpointing(joint)
        shapes = [step_spec.conditions.batch for step_spec in step_specs]

        def make() -> list[Any]:
            # twice, for each task's loader holds its next batch already
            return list(together([shape.empty() for shape in shapes * 2], cycle(range(len(shapes)))))

        learned = {task: shape.learned for task, shape in enumerate(shapes)}

        def loss(batch: Mapping[str, Any]) -> torch.Tensor:
            return joint_loss(joint, batch, conditions.loss_chunk, learned[batch["task"]])

        live = step_of(joint, make, len(step_specs), conditions, loss=loss)
    except RuntimeError as error:
        raise PlanError(
            f"The memory of training this backbone on several datasets cannot be foreseen ({first_line(error)}); "
            "choose another backbone, or train one dataset at a time with taskit plan."
        ) from error
    return live.peak + conditions.runtime_bytes


def _empty(step_specs: "Sequence[StepSpec]", ranks: Mapping[str, int], tree: TaskTree) -> JointModel:
    with torch.device("meta"):
        models = [step_spec.build() for step_spec in step_specs]
        share_backbone(models[0], models[1:], step_specs[0].task)
        return join(models, ranks, tree, step_specs[0].task)
