"""Measure the peak memory of a run: the allocator's own count on a GPU, live storages on a CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from taskit.memory.live import LiveStorages


@contextmanager
def measured_peak(device: torch.device) -> Iterator[Callable[[], tuple[int, str]]]:
    """Yields a function that returns (peak bytes so far, "cuda" or "cpu-storages")."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: (torch.cuda.max_memory_allocated(device), "cuda")
        return
    with LiveStorages() as live:
        yield lambda: (live.peak, "cpu-storages")
