"""Let meta tensors pass for tensors on the training device, so that code takes that device's paths.

Tensors on meta have shapes, dtypes and storages of a size, but no bytes, and operators on them cost
microseconds.  What a model does with them can still differ from a real run, since code reads the
device, attention picks a kernel by it, and fused optimizers accept some devices only.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.optim.optimizer as fused
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from taskit.memory.attention import attend

_ATTENTION = torch.nn.functional.scaled_dot_product_attention
_PROPERTIES: Any = torch.Tensor
CODES = 256  # entries of an 8-bit code book
_META, _CPU = torch.device("meta"), torch.device("cpu")
_MOVES = (torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu)


@contextmanager
def simulated_device(device: str, known: bool = False) -> Iterator[None]:
    """Inside, every new tensor is on meta, and every tensor says that it is on ``device`` ("cpu" or "cuda").

    Where inputs are ``known`` (known.py), what is not of floating point is made with its numbers, and what holds
    numbers keeps them.
    """
    from transformers.utils import import_utils

    mode = _SimulatedDevice(torch.device(device), known)
    run_backward: Any = getattr(torch.autograd, "_engine_run_backward", None)

    def run_simulated(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return run_backward(*args, **kwargs)

    with (
        # Transformers must not read masks that hold no numbers, as it does not read those of a tracer
        _replaced(import_utils, "is_fake_tensor", on_meta),
        # fused optimizers check the device in Python code that no mode can intercept
        _replaced(fused, "_get_fused_kernels_supported_devices", lambda: ["cpu", "cuda", "meta"]),
        # a mode is off while it handles a call, and the call of backward recomputes blocks and runs Python functions
        _replaced(torch.autograd, "_engine_run_backward", run_simulated),
        _single_rows_without_padding(),
        _empty_code_books(),
        mode,
    ):
        yield


def on_meta(value: Any) -> bool:
    """Whether a tensor is on meta, whatever it says that it is on."""
    with torch._C.DisableTorchFunction():
        return isinstance(value, torch.Tensor) and value.is_meta


@contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """``module.name`` is ``value`` inside.

    A release that lacks the name is left as it is: what then reads numbers of meta tensors raises a RuntimeError,
    and the step is taken on real ones (numbers.py).
    """
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _single_rows_without_padding() -> Iterator[None]:
    """Let a mask that holds no numbers count as one without padding where it has a single row.

    A batch is padded to its longest row.  Without padding Transformers makes no mask of tokens x tokens, which at
    tens of thousands of tokens takes gigabytes.
    """
    from transformers import masking_utils

    def of(ignore: Callable[..., bool], padding_mask: Any, *args: Any, **kwargs: Any) -> bool:
        single = on_meta(padding_mask) and len(padding_mask) == 1
        return ignore(None if single else padding_mask, *args, **kwargs)

    with ExitStack() as stack:
        for name in ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa"):
            before: Any = getattr(masking_utils, name, None)
            stack.enter_context(_replaced(masking_utils, name, partial(of, before)))
        yield


@contextmanager
def _empty_code_books() -> Iterator[None]:
    """Let bitsandbytes, where it is in use, make its code books without numbers, and forget them afterwards."""
    functional = sys.modules.get("bitsandbytes.functional")
    with ExitStack() as stack:
        if functional is not None:
            stack.enter_context(_replaced(functional, "create_dynamic_map", lambda *_, **__: torch.empty(CODES)))
            stack.enter_context(_replaced(functional, "name2qmap", dict(getattr(functional, "name2qmap", {}))))
        yield


class _SimulatedDevice(TorchFunctionMode):
    def __init__(self, device: torch.device, known: bool) -> None:
        self.constructors = _device_constructors()
        self.device = device
        self.known = known
        # a property's getter is another object at every look, so that these are found by equality
        self.answers = {
            _PROPERTIES.device.__get__: device,
            _PROPERTIES.is_meta.__get__: False,
            _PROPERTIES.is_cuda.__get__: device.type == "cuda",
            _PROPERTIES.is_cpu.__get__: device.type == "cpu",
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.answers:
            return self.answers[func]
        if func is _ATTENTION:
            return attend(self.device, *args, **kwargs)
        actual = _META
        if self.known and args and isinstance(args[0], torch.Tensor) and not args[0].is_meta:
            actual = _CPU
        if func in _MOVES:
            args = (args[0], *(actual if _names_device(a) else a for a in args[1:]))
        if func in self.constructors or kwargs.get("device") is not None:
            kwargs["device"] = actual
        made = func(*args, **kwargs)
        if self.known and func in self.constructors and not made.is_floating_point():
            del made
            made = func(*args, **{**kwargs, "device": _CPU})
        return made


def _names_device(value: Any) -> bool:
    return isinstance(value, (torch.device, str))
