"""Count the bytes of live tensor storages, the CPU's stand-in for ``torch.cuda.max_memory_allocated``."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode


def standing_tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    """What a model holds between two steps: parameters, buffers, and the scales of quantised weights."""
    parameters = [_piece(p) for p in model.parameters()]
    layers = (vars(module)["state"] for module in model.modules() if "state" in vars(module))
    return [*parameters, *model.buffers(), *chain.from_iterable(map(_tensors_of, (*parameters, *layers)))]


def _piece(parameter: torch.Tensor) -> torch.Tensor:
    """What this process holds of a parameter that several share."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


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
        rules: what to call instead of an operator.
        scratch: bytes that an operator needs beside its results while it runs, from its arguments.
        keep: whether to keep the history.
        resized: whether storages change their size while they live, as the weights that processes share out do;
            then all are read again at every operator.

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
        resized: bool = False,
    ) -> None:
        super().__init__()
        self.granularity = granularity
        self.rules = rules or {}
        self.scratch = scratch or {}
        self.now = 0
        self.peak = 0
        self.keep = keep
        self.history: list[int] = []
        self.resized = resized
        self._alive: dict[int, weakref.ref] = {}
        self._sizes: dict[int, int] = {}

    def follow(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._alive:
                self._alive[key] = weakref.ref(storage, lambda _, key=key: self._free(key))
                self._sizes[key] = 0
                self._read(key, storage)

    def _read(self, key: int, storage: torch.UntypedStorage) -> None:
        size = -(-storage.nbytes() // self.granularity) * self.granularity
        self.now += size - self._sizes[key]
        self._sizes[key] = size
        self._reach(self.now)

    def _read_all(self) -> None:
        for key, reference in list(self._alive.items()):
            if (storage := reference()) is not None:
                self._read(key, storage)

    def _reach(self, size: int) -> None:
        self.peak = max(self.peak, size)
        if self.keep:
            self.history.append(size)

    def _free(self, key: int) -> None:
        del self._alive[key]
        self.now -= self._sizes.pop(key)

    def result(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the operator ``func`` returns, by its rule where it has one."""
        return (self.rules.get(func) or func)(*args, **kwargs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.resized:
            self._read_all()
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
