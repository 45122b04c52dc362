"""The head of a language model, taken apart from it: the hidden states that it is given, and what makes them logits.

Nothing here is a table of architectures.  The model runs once on a batch without its labels, with a head that keeps
the hidden states and computes the logits of one token.  Whatever the model does to those before it returns them (a
soft cap, a scale, a bias) is recorded, and can be done to the logits of any tokens.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from taskit.errors import BackboneError
from taskit.step.targets import inputs_of

# What a model may do to its logits: to each token and word alone, whatever the number of tokens.
# fmt: off
POINTWISE = frozenset((
    "mul", "multiply", "__mul__", "__rmul__", "div", "divide", "true_divide", "__truediv__", "add", "__add__",
    "__radd__", "sub", "subtract", "__sub__", "neg", "__neg__", "tanh", "clamp", "float", "to", "type", "contiguous",
))
# fmt: on
Batch = Mapping[str, Tensor]


def base_of(model: Any) -> Any:
    """The Transformers model inside PEFT's."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@dataclass(frozen=True, slots=True)
class _Step:
    """One function that a model applies to its logits: they are the argument at ``place``."""

    function: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    place: int

    def __call__(self, logits: Tensor) -> Tensor:
        return self.function(*self.args[: self.place], logits, *self.args[self.place + 1 :], **self.kwargs)


class _Recorded(Tensor):
    """The logits of one token (1, 1, words), which note what is done to them."""

    steps: tuple[_Step, ...] = ()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        if not isinstance(result, Tensor) and result is not None:
            return result  # a shape, a device
        places = [place for place, value in enumerate(args) if isinstance(value, _Recorded)]
        others = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        spread = all(set(value.shape[:-1]) <= {1} for value in others)
        if func.__name__ not in POINTWISE or len(places) != 1 or result is None or not spread:
            raise cannot_chunk(f"it calls {func.__name__} on its logits")
        logits = args[places[0]]
        constant = (*args[: places[0]], None, *args[places[0] + 1 :])  # not the logits themselves
        return _recorded(result, (*logits.steps, _Step(func, constant, kwargs, places[0])))


def _recorded(logits: Tensor, steps: tuple[_Step, ...]) -> _Recorded:
    with torch._C.DisableTorchFunctionSubclass():
        made = logits.as_subclass(_Recorded)
    made.steps = steps
    return made


def cannot_chunk(why: str) -> BackboneError:
    return BackboneError(f"The loss of this backbone cannot be taken in chunks: {why}; leave it its own loss.")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a language model: its module, and what the model does to the logits after it."""

    module: Any
    steps: tuple[_Step, ...]
    words: int

    def logits(self, hidden: Tensor) -> Tensor:
        """(1, tokens, words) of hidden states (1, tokens, width); not by a call, whose hooks belong to the model."""
        logits = self.module.forward(hidden)
        for step in self.steps:
            logits = step(logits)
        return logits

    def trained(self) -> list[Tensor]:
        """What requires a gradient: parameters of the module, and tensors that the model adds or scales by."""
        constants = tree_leaves([(step.args, step.kwargs) for step in self.steps])
        tensors = (*self.module.parameters(), *(value for value in constants if isinstance(value, Tensor)))
        return [tensor for tensor in tensors if tensor.requires_grad]


@dataclass(frozen=True, slots=True)
class TakenApart:
    """Hidden states (rows, tokens, width) before the head, and what a mixture of experts adds to the loss."""

    hidden: Tensor
    head: Head
    auxiliary: Tensor | None


def take_apart(model: Any, batch: Batch) -> TakenApart:
    """Run the model on a batch without its labels, its head on the first token alone."""
    base = base_of(model)
    module = base.get_output_embeddings()
    with _head_replaced(module) as seen:
        output = model(**_inputs_without_labels(base, batch))
    if len(seen) != 1 or seen[0].ndim != 3:
        raise cannot_chunk("its head is not called once, on hidden states (rows, tokens, width)")
    logits = output.logits
    if not isinstance(logits, _Recorded):
        raise cannot_chunk("its logits do not come from its head")
    return TakenApart(seen[0], Head(module, logits.steps, logits.shape[-1]), _auxiliary(base.config, output))


def _inputs_without_labels(base: Any, batch: Batch) -> dict[str, Any]:
    """What a model computes its logits from; it makes its decoder's inputs of the labels that it is not given."""
    inputs: dict[str, Any] = inputs_of(batch)
    if not base.config.is_encoder_decoder:
        return inputs
    if "decoder_input_ids" not in inputs:
        shift = getattr(base, "prepare_decoder_input_ids_from_labels", None)
        if shift is None:
            raise cannot_chunk("it does not say how it makes its decoder's inputs of the labels")
        inputs["decoder_input_ids"] = shift(batch["labels"])
    return inputs | {"use_cache": False}  # as with labels


@contextmanager
def _head_replaced(module: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, ``module`` keeps its hidden states, in the list, and computes the logits of one token, recorded."""
    seen: list[Tensor] = []
    own, forward = vars(module).get("forward"), module.forward

    def keep(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        with torch.no_grad():
            return _recorded(forward(hidden[:1, :1]), ())

    module.forward = keep
    try:
        yield seen
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _auxiliary(config: Any, output: Any) -> Tensor | None:
    """What a mixture of experts adds to its loss to balance them, where its router's logits are asked for."""
    if not any(getattr(one, "output_router_logits", False) for one in (config, config.get_text_config())):
        return None
    weight, loss = getattr(config.get_text_config(), "router_aux_loss_coef", None), getattr(output, "aux_loss", None)
    if weight is None or loss is None:
        raise cannot_chunk("it does not say what its experts add to it")
    return weight * loss
