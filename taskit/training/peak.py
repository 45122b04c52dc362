"""Measure the peak memory of a run: the allocator's own count on a GPU, live storages on a CPU."""

from collections.abc import Iterable

import torch

from taskit.memory.live import LiveStorages
from taskit.memory.shapes import SCRATCH


class _RealStorages(LiveStorages):
    """Without tensors on meta, as of an empty model that tells the shapes of adapters: those take no memory."""

    def follow(self, tensors: Iterable[torch.Tensor]) -> None:
        super().follow(tensor for tensor in tensors if not tensor.is_meta)


class PeakMeter:
    """Measures while entered, as often as one likes; on a GPU always, because there it costs nothing.

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


def cap_allocator(device: torch.device, budget_bytes: int) -> None:
    """Let this process take no more than the budget from a GPU, whose other users rely on that."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(budget_bytes / total, 1.0), device)
