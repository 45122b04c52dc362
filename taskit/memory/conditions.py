"""What a training step looks like apart from the strategy: batch, optimizer, accumulation."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CUDA_BLOCK = 512  # kMinBlockSize of PyTorch's caching allocator


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Name, shape and dtype of every tensor of the longest batch the data can produce."""

    tensors: tuple[tuple[str, tuple[int, ...], str], ...]

    @classmethod
    def of(cls, batch: "Mapping[str, torch.Tensor]") -> "BatchShape":
        return cls(tuple((k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in batch.items()))

    @property
    def numbers(self) -> int:
        """How many numbers the batch holds."""
        return sum(prod(shape) for _, shape, _ in self.tensors)

    @property
    def rows(self) -> int:
        return self.tensors[0][1][0]

    def with_rows(self, rows: int) -> "BatchShape":
        """The same batch with another number of rows."""
        return BatchShape(tuple((name, (rows, *shape[1:]), dtype) for name, shape, dtype in self.tensors))

    def empty(self) -> "dict[str, torch.Tensor]":
        """A batch of zeros of this shape: real, or on meta where ``posing`` is."""
        import torch

        return {name: torch.zeros(shape, dtype=getattr(torch, dtype)) for name, shape, dtype in self.tensors}


@dataclass(frozen=True, slots=True)
class Conditions:
    """The rest of a step.

    Attributes:
        optimizer: one of taskit.training.step.OPTIMIZERS.
        device: where the run trains, "cpu" or "cuda"; decides which kernels are taken.
        on_numbers: take the step on real tensors of this machine's memory, all zero, instead of on meta.
        runtime_bytes: what the device's libraries keep allocated beside all tensors.
    """

    batch: BatchShape
    optimizer: str = "adamw"
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    device: str = "cpu"
    runtime_bytes: int = 0
    on_numbers: bool = False

    @property
    def granularity(self) -> int:
        """The least number of bytes that the device's allocator hands out; a CPU's live storages are exact."""
        return CUDA_BLOCK if self.device == "cuda" else 1
