"""The truth for activation bytes: what a model with just one strategy saves, counted by hooks on a separate build."""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.architectures import Architecture
from taskit.step.lora import adapt


def saved_bytes(architecture: Architecture, ranks: Mapping[str, int], heads: tuple[str, ...]) -> int:
    """Bytes of the distinct storages that the forward pass saves beside parameters, buffers and batch.

    Counted by torch.autograd.graph.saved_tensors_hooks on PyTorch's own fake CPU tensors; shares no code with
    taskit.memory beyond the shape of the batch.
    """
    with torch.device("meta"):
        model = adapt(architecture.build(), ranks, heads, architecture.task)
    held, shape = {}, architecture.batch()
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        _leave_meta(model)
    # inputs that decide what a model does with them hold numbers; whatever meets a fake weight becomes fake
    with nullcontext() if shape.known else fake:
        batch = shape.empty()
        own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers(), *batch.values())}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                held[storage._cdata] = storage  # holding it keeps the address from being used again
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(**batch).loss
        del loss
        return sum(storage.nbytes() for storage in held.values())


def _leave_meta(model: torch.nn.Module) -> None:
    """Replace every tensor by a fake one on the CPU; ties are lost, which no activation minds."""
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                learns = p.requires_grad
                module._parameters[name] = torch.nn.Parameter(
                    torch.empty(p.shape, dtype=p.dtype), requires_grad=learns
                )
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = torch.empty(b.shape, dtype=b.dtype)
