"""The device that trains: which one, what its libraries keep allocated, and its part of a backbone shared by several.

Several devices share out the frozen backbone block by block (FSDP2's fully_shard).  Every weight is cut along its
first dimension into as many pieces as there are devices, rounded up.  A block is gathered just before it computes,
forward and backward.  What lives at a time beside the pieces is bounded by the weights outside the blocks, which stay
gathered through a step, and by three times the largest block: the one that computes, the next one, already on its
way, and the buffer in which it arrives.  LoRA and heads are on every device.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch

from taskit.step.recompute import blocks_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AT_ONCE = 3  # blocks


def training_device() -> str:
    """The device that Accelerate would choose, as far as its memory is known: "cuda" or "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def runtime_bytes(device: str) -> int:
    """Bytes that stay allocated after a matrix product and its gradient: cuBLAS takes its workspaces for good.

    Measured on the GPU itself, once a process; 0 on a CPU, whose libraries do not use PyTorch's allocator.
    """
    if device != "cuda":
        return 0
    before = torch.cuda.memory_allocated()
    a = torch.ones(64, 64, device=device, requires_grad=True)
    b = torch.ones(64, 64, device=device)
    torch.addmm(b, a, b).sum().backward()
    del a, b
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated() - before


def sharing_bytes(model: "PreTrainedModel", heads: Sequence[str], shards: int) -> int:
    """What each of ``shards`` devices needs beyond the whole ``model``, in bytes; negative where sharing saves.

    ``model`` holds no LoRA yet; its ``heads`` are trained and not shared.
    """
    if shards == 1:
        return 0
    trained = {id(p) for name in heads for p in model.get_submodule(name).parameters()}
    frozen = [p for p in model.parameters() if id(p) not in trained]
    blocks = [_bytes(block.parameters()) for block in blocks_of(model)]
    pieces = sum(-(-len(p) // shards) * p[0].numel() * p.element_size() for p in frozen)
    gathered = _bytes(frozen) - sum(blocks) + AT_ONCE * max(blocks, default=0)
    return pieces + gathered - _bytes(frozen)


def _bytes(parameters: Iterable[torch.Tensor]) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)
