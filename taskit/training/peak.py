"""Measure the peak memory of a run: the allocator's own count on a GPU, live storages on a CPU."""

from collections.abc import Iterable
from typing import cast

import torch
from accelerate import Accelerator

from taskit.memory.live import LiveStorages
from taskit.memory.shapes import SCRATCH


class _RealStorages(LiveStorages):
    """Without tensors on meta, as in an empty model from which adapter shapes are read: those take no memory."""

    def follow(self, tensors: Iterable[torch.Tensor]) -> None:
        super().follow(tensor for tensor in tensors if not tensor.is_meta)


class PeakMeter:
    """Measures while entered, any number of times; on a GPU always, because there it costs nothing.

    ``follow`` the weights once they are loaded, since no operator returns those; ``shared`` says whether with other
    processes.
    """

    def __init__(self, device: torch.device, shared: bool = False) -> None:
        self.device = device
        self._live = None if device.type == "cuda" else _RealStorages(scratch=SCRATCH, resized=shared)
        if self._live is None:
            torch.cuda.reset_peak_memory_stats(device)

    def __enter__(self) -> "PeakMeter":
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def follow(self, tensors: Iterable[torch.Tensor]) -> None:
        if self._live is not None:
            self._live.follow(tensors)

    @property
    def peak(self) -> tuple[int, str]:
        """(bytes, "cuda" or "cpu-storages")."""
        if self._live is None:
            return torch.cuda.max_memory_allocated(self.device), "cuda"
        return self._live.peak, "cpu-storages"

    def peak_of_all(self, accelerator: Accelerator) -> int:
        """The measured peak so far, in bytes: the largest of all processes."""
        here = torch.tensor([self.peak[0]], device=accelerator.device)
        return max(cast("torch.Tensor", accelerator.gather(here)).tolist())


def cap_allocator(device: torch.device, budget_bytes: int) -> None:
    """Let this process take no more than the budget from a GPU, whose other users rely on that."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(budget_bytes / total, 1.0), device)
