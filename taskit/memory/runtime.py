"""The device that would train, and what its libraries keep allocated beside all tensors."""

from functools import cache

import torch


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
