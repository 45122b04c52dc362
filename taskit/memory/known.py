"""Compute what no weight flows into: the inputs of a vision-language model set shapes and control flow.

Such a model counts image tokens, cuts images into windows and drops empty tiles before its first weight is met.
Here the inputs hold numbers while the weights are on meta: an operator whose operands all hold numbers is computed,
one with any operand on meta takes the shapes of the others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from taskit.memory.live import LiveStorages

aten: Any = torch.ops.aten


class KnownInputs(LiveStorages):
    """LiveStorages in which tensors with numbers and tensors on meta can meet in one operator.

    Raises NotImplementedError where a number would come from a weight.
    """

    def result(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        with torch._C.DisableTorchFunction():  # inside simulated_device no tensor says that it is on meta
            kinds = {tensor.is_meta for tensor in _tensors((*args, *kwargs.values()))}
            if kinds == {False}:
                return func(*args, **kwargs)
            if len(kinds) == 2:
                _require_readable(func, args)
                if func in _COUNTED:
                    return _COUNTED[func](*args, **kwargs)
                if func in _INDEXED:
                    args = (args[0], _positions(args[1]), *args[2:])
                args, kwargs = tree_map_only(Tensor, _shape_of, (args, kwargs))
        return super().result(func, args, kwargs)


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    """The tensors among the arguments of an operator, which takes lists of tensors, but no deeper nesting."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (one for one in value if isinstance(one, Tensor))


def _require_readable(func: Any, args: Sequence[Any]) -> None:
    """Nothing on meta can be written into a tensor that holds numbers."""
    for value, argument in zip(args, func._schema.arguments, strict=False):
        written = argument.alias_info is not None and argument.alias_info.is_write
        if written and any(not tensor.is_meta for tensor in _tensors((value,))):
            raise NotImplementedError(f"{func} writes what a weight made into an input")


def _shape_of(tensor: Tensor) -> Tensor:
    if tensor.is_meta:
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _positions(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices with every known mask replaced by the positions that it selects: so many rows has the result."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not index.is_meta:
            found.extend(index.nonzero().unbind(1))
        else:
            found.append(index)
    return found


def _selected(values: Tensor, mask: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(values.shape, mask.shape)
    return values.new_empty(int(mask.expand(shape).sum()))


def _gradient_of_scattered(gradient: Tensor, _mask: Tensor, sizes: Sequence[int]) -> Tensor:
    return gradient.new_empty(sizes)


_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
# Operators on meta whose result is as large as a mask says.
_COUNTED: dict[Any, Callable[..., Tensor]] = {
    aten.masked_select.default: _selected,
    aten.masked_scatter_backward.default: _gradient_of_scattered,
}
