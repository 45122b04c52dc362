"""TGLoRA: several tasks over one frozen backbone, whose pairs are shared by groups of tasks, ever smaller with depth.

Every task has a plain PEFT model of its own.  Their frozen weights are the same tensors, and so are the ``lora_A``
and ``lora_B`` of a location for all tasks that are one group at its depth level: a tied pair gets the sum of its
tasks' gradients, the frozen backbone is held once, and what a task exports is an ordinary LoRA, the pairs on its path
through the tree.  Where groups part, features part too, since each task's forward is its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from taskit.backbone.heads import head_names
from taskit.backbone.target_modules import find_locations
from taskit.step.lora import adapt
from taskit.step.loss import loss_of
from taskit.together.task_tree import TaskTree, level_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class JointModel(nn.Module):
    """T adapted models that share; a batch says by ``task`` (0 to T - 1) which of them it is for."""

    def __init__(self, models: Sequence[Any]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.config = models[0].config

    def gradient_checkpointing_enable(self, options: Mapping[str, Any]) -> None:
        """As every model of Transformers has it."""
        for model in self.models:
            cast(Any, model).gradient_checkpointing_enable(options)

    def disable_input_require_grads(self) -> None:
        """As every model of Transformers has it."""
        for model in self.models:
            cast(Any, model).disable_input_require_grads()

    def forward(self, task: int, **inputs: Tensor) -> Any:
        return self.models[task](**inputs)


def share_backbone(first: "PreTrainedModel", twins: Sequence["PreTrainedModel"], task: str) -> None:
    """Let ``twins``, empty models for other labels, hold the very weights and buffers of ``first``.

    Their heads stay separate: they start as that of ``first``, or at zero where they have other shapes, which the
    number of labels decides.
    """
    heads = head_names(first, task)
    weights = dict(first.named_parameters(remove_duplicate=False))
    for twin in twins:
        for name, empty in list(twin.named_parameters(remove_duplicate=False)):
            found: Tensor = weights[name]
            if any(f"{name}.".startswith(f"{head}.") for head in heads):
                same = found.shape == empty.shape
                value = found.detach().clone() if same else torch.zeros_like(empty, device=found.device)
                found = nn.Parameter(value, requires_grad=False)
            module, leaf = _holder(twin, name)
            module._parameters[leaf] = found
        for name, buffer in first.named_buffers(remove_duplicate=False):
            module, leaf = _holder(twin, name)
            module._buffers[leaf] = buffer


def join(models: Sequence["PreTrainedModel"], ranks: Mapping[str, int], tree: TaskTree, task: str) -> JointModel:
    """A LoRA for each of ``models``, which share their backbone already, tied along ``tree``.

    ``ranks`` are by location and the same for all tasks.  Every task's pairs begin as they would if it were trained
    alone with the same random state, so that a tree of T groups throughout is T separate runs.
    """
    heads, levels = head_names(models[0], task), _levels(models[0], len(tree.stages))
    adapted = []
    for model in models:
        with torch.random.fork_rng():
            adapted.append(adapt(model, ranks, heads, task))
    for name in (name for name, rank in ranks.items() if rank):
        layers: list[Any] = [model.get_submodule(f"base_model.model.{name}") for model in adapted]
        for owner, *members in tree.stages[levels[name]]:
            for side in ("lora_A", "lora_B"):
                pair = getattr(layers[owner], side)["default"]
                for member in members:
                    getattr(layers[member], side)["default"].weight = pair.weight
    return JointModel(adapted)


def _levels(model: "PreTrainedModel", count: int) -> dict[str, int]:
    """The depth level of each location, of ``count`` levels."""
    locations = find_locations(model)
    blocks = locations[-1].block + 1
    return {location.name: level_of(location.block, blocks, count) for location in locations}


def _holder(model: nn.Module, name: str) -> tuple[Any, str]:
    """The module that holds the tensor called ``name``, and its name there."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def shared_gradient(joint: JointModel) -> Tensor:
    """The gradients of all LoRA parameters, flat, on the CPU; they are zeroed for the next."""
    trained = [p for name, p in joint.named_parameters() if "lora_" in name and p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in trained])
    joint.zero_grad()
    return flat.cpu()


def joint_loss(joint: JointModel, batch: Mapping[str, Any], chunk: int | None, learned: int | None = None) -> Tensor:
    """`loss_of` the model that a batch is for."""
    inputs = {name: value for name, value in batch.items() if name != "task"}
    return loss_of(joint.models[batch["task"]], inputs, chunk, learned)


def together(batches: Iterable[Mapping[str, Tensor]], tasks: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The batches, each marked with its task."""
    return ({**batch, "task": task} for batch, task in zip(batches, tasks, strict=False))
