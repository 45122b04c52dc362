"""Count the bytes of live tensor storages, the CPU's stand-in for ``torch.cuda.max_memory_allocated``."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def standing_tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    """What a model holds between two steps: parameters, buffers, and the scales of quantised weights."""
    parameters = list(model.parameters())
    layers = (vars(module)["state"] for module in model.modules() if "state" in vars(module))
    return [*parameters, *model.buffers(), *chain.from_iterable(map(_tensors_of, (*parameters, *layers)))]


def _tensors_of(holder: Any) -> Iterable[torch.Tensor]:
    """The tensors among the attributes of a parameter or of a quantisation state, which may hold another one."""
    for value in vars(holder).values():
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value).__name__ == "QuantState":
            yield from _tensors_of(value)


class LiveStorages(TorchDispatchMode):
    """While entered, follows every storage that an operator returns, until it is freed.

    Works alike on real and on meta tensors, forward, backward and optimizer included.  Storages
    that exist already are followed once they are given to ``follow``.  Not seen: what a kernel
    allocates and frees inside one operator, and what is not a tensor.

    Args:
        granularity: every storage is counted up to a multiple of this, as an allocator hands them out.
        rules: what to call in the place of an operator.
        scratch: bytes that an operator needs beside its results while it runs, from its arguments.
        keep: whether to keep the history.

    Attributes:
        now: bytes of the storages alive.
        peak: the largest ``now`` so far, in bytes.
        history: ``now`` after every growth, and with the scratch of every operator that needs some.
    """

    def __init__(
        self,
        granularity: int = 1,
        rules: Mapping[Any, Callable[..., Any]] | None = None,
        scratch: Mapping[Any, Callable[..., int]] | None = None,
        keep: bool = False,
    ) -> None:
        super().__init__()
        self.granularity = granularity
        self.rules = rules or {}
        self.scratch = scratch or {}
        self.now = 0
        self.peak = 0
        self.keep = keep
        self.history: list[int] = []
        self._alive: dict[int, weakref.ref] = {}

    def follow(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._alive:
                size = -(-storage.nbytes() // self.granularity) * self.granularity
                self._alive[key] = weakref.ref(storage, lambda _, key=key, size=size: self._free(key, size))
                self.now += size
                self._reach(self.now)

    def _reach(self, size: int) -> None:
        self.peak = max(self.peak, size)
        if self.keep:
            self.history.append(size)

    def _free(self, key: int, size: int) -> None:
        del self._alive[key]
        self.now -= size

    def result(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the operator ``func`` returns, by its rule where it has one."""
        return (self.rules.get(func) or func)(*args, **kwargs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = self.result(func, args, kwargs or {})
        if isinstance(result, torch.Tensor):
            self.follow((result,))
        elif isinstance(result, (tuple, list)):  # operators return tensors, or a flat sequence with them
            self.follow(leaf for part in result for leaf in _tensors(part))
        if func in self.scratch:
            self._reach(self.now + self.scratch[func](*args, **(kwargs or {})))
        return result


def _tensors(part: Any) -> Iterable[torch.Tensor]:
    if isinstance(part, torch.Tensor):
        return (part,)
    return (t for t in part if isinstance(t, torch.Tensor)) if isinstance(part, (tuple, list)) else ()
