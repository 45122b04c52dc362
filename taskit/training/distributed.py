"""Several processes that train one run, each on its share of the batches and, with shards, of the frozen backbone.

LoRA and heads stay whole in each process.

DistributedDataParallel would broadcast the whole frozen backbone at the start and keep the gradients twice, in
buckets of its own; neither is in the plan of a device, and what is trained here is small.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import distributed

from taskit.errors import RunError
from taskit.planning.plan import Plan
from taskit.step.recompute import blocks_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def broadcast_parameters(trained: Sequence[torch.nn.Parameter]) -> None:
    """Give every process the first one's weights, in place."""
    if distributed.is_initialized():
        for parameter in trained:
            distributed.broadcast(parameter, src=0)


def average_gradients(trained: Sequence[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in place."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    for gradient in gradients:
        distributed.all_reduce(gradient)
        gradient.div_(distributed.get_world_size())


def require_processes(plan: Plan, accelerator: Accelerator) -> None:
    """Refuse to train a plan with another number of shares than there are processes.

    Raises:
        RunError: the number of processes is not that of the plan's shards.
    """
    shards = plan.training.shards
    if shards not in (1, accelerator.num_processes):
        raise RunError(
            f"The plan shares its backbone among {shards} processes and this is a run of "
            f"{accelerator.num_processes}; start it with accelerate launch --num_processes {shards}."
        )


def shard_backbone(model: "PreTrainedModel", heads: Sequence[str], accelerator: Accelerator) -> None:
    """Leave each process its piece of every frozen weight, on its device; blocks are gathered when they compute.

    What is put into the model later, a LoRA for example, is not shared.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole = {p for name in heads for p in model.get_submodule(name).parameters()}
    for name in heads:
        model.get_submodule(name).to(accelerator.device)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in (*blocks_of(model), model):
        fully_shard(module, mesh=mesh, ignored_params=whole)
