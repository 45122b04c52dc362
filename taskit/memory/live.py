"""Count the bytes of live tensor storages, the CPU's stand-in for ``torch.cuda.max_memory_allocated``."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveStorages(TorchDispatchMode):
    """While entered, follows every storage that an operator returns, until it is freed.

    Works alike on real and on fake tensors, forward, backward and optimizer included.  Storages
    that exist already are followed once they are given to ``follow``.  Not seen: what a kernel
    allocates and frees inside one operator, and what is not a tensor.

    Attributes:
        now: bytes of the storages alive.
        peak: the largest ``now`` so far, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def follow(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._alive:
                self._alive[key] = weakref.ref(storage, lambda _, key=key, size=size: self._free(key, size))
                self.now += size
                self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int) -> None:
        del self._alive[key]
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.follow(leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        return result
