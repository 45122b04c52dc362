"""Several processes that train one run, each on its share of the batches.

DistributedDataParallel would send the whole frozen backbone round at the start and keep the gradients twice, in
buckets of its own; neither is in the plan of a device, and what is trained here is small.
"""

from collections.abc import Sequence

import torch
from torch import distributed


@torch.no_grad()
def share_start(trained: Sequence[torch.nn.Parameter]) -> None:
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
