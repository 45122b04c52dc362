"""A probe of the new task: the features x(theta; d) that the head reads, and the gradient of the loss there.

The head of a classifier does not exist before training, and a random one points in a random direction; so its
place is taken by a closed-form head, fitted on the probe and on further rows: with 128 rows alone it is too noisy to
separate similar tasks from others.  For generation the model's own head serves.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from taskit.errors import DataError
from taskit.step.language_head import take_apart
from taskit.step.loss import loss_chunk, loss_of
from taskit.step.targets import inputs_of, target_count
from taskit.transfer.ridge_head import SOFTENED, Head, fit_head


@dataclass(frozen=True, slots=True)
class Probe:
    """One batch: its inputs, x(theta; d) and grad_x L, both (n, d) or (n, t, d), and the tokens (n, t) that count."""

    inputs: Mapping[str, Tensor]
    x: Tensor
    gradient: Tensor
    mask: Tensor | None


def class_probes(
    model: PreTrainedModel,
    batches: Sequence[Mapping[str, Tensor]],
    head: nn.Linear,
    more: Sequence[Mapping[str, Tensor]] = (),
) -> tuple[list[Probe], Head]:
    """Probes of a classification task, and the closed-form head under which they are taken.

    ``head`` is the last linear, and only its input and width are used.  The rows of ``more`` help to fit the
    closed-form head and are no probes.
    Raises DataError for labels outside the head and for a single class.
    """
    rows = (*batches, *more)
    labels = torch.cat([batch["labels"] for batch in rows])
    _check_labels(labels, head.out_features)
    # The labels stay out of the forward: the loss of a random head is of no use.
    inputs = [inputs_of(batch) for batch in rows]
    xs = [example_features(model, head, batch) for batch in inputs]
    probed = sum(len(x) for x in xs[: len(batches)])
    fitted = fit_head(torch.cat(xs), labels, head.out_features)
    gradient = held_out_gradient(fitted, labels)[:probed] * (len(labels) / probed)
    parts = gradient.split([len(x) for x in xs[: len(batches)]])
    return [Probe(*one, None) for one in zip(inputs, xs, parts, strict=False)], fitted


def text_probes(model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]], head: nn.Module) -> list[Probe]:
    """Probes of a generation task, token by token; ``head`` is the output embedding.

    Raises DataError where a batch has no token to be learned.
    """
    probes, chunk = [], loss_chunk(model)
    for batch in batches:
        with torch.enable_grad(), _captured(head, leaf=True) as seen:
            loss = loss_of(model, batch, chunk)
        if not torch.isfinite(loss) or not target_count(batch, model.config.is_encoder_decoder):
            raise DataError("The probe gives no finite loss; check that its completions are not empty or cut off.")
        gradient = torch.autograd.grad(loss, seen[0])[0].float()
        x = seen[0].detach().float()
        probes.append(Probe(batch, x, gradient, text_mask(model, batch, x)))
    return probes


def hidden_states(model: PreTrainedModel, inputs: Mapping[str, Tensor], *, graph: bool = False) -> Tensor:
    """x of a language model whose loss is taken in chunks, as `token_features`, but without all logits."""
    with torch.set_grad_enabled(graph):
        return take_apart(model, inputs).hidden.float()


def token_features(
    model: PreTrainedModel, reader: nn.Module, inputs: Mapping[str, Tensor], *, graph: bool = False
) -> Tensor:
    """x: the direct input of ``reader``, the last linear of a head, in float32; with its ``graph`` if asked for."""
    with torch.set_grad_enabled(graph), _captured(reader, graph=graph) as seen:
        model(**inputs)
    return seen[0].float()


def example_features(
    model: PreTrainedModel, reader: nn.Module, inputs: Mapping[str, Tensor], *, graph: bool = False
) -> Tensor:
    """x (n, d) of a classifier; a decoder scores every token and keeps the last one that is no padding."""
    x = token_features(model, reader, inputs, graph=graph)
    if x.ndim == 2:
        return x
    mask = inputs.get("attention_mask", torch.ones(x.shape[:2], dtype=torch.long, device=x.device))
    last = (torch.arange(x.shape[1], device=x.device) * mask).argmax(-1)
    return x[torch.arange(len(x), device=x.device), last]


def held_out_gradient(head: Head, labels: Tensor) -> Tensor:
    """grad_x (n, d) of the mean cross-entropy at the rows on which ``head``, with which training starts, was fitted.

    Its logits are softened as there.  A head fitted to the very examples can explain them all, and its gradient
    vanishes; so the error of each is that of the head fitted to all others (our reading).
    """
    error = F.softmax(SOFTENED * head.held_out, -1) - F.one_hot(labels, len(head.bias))
    return error @ (SOFTENED * head.weight) / len(labels)


def stand_in_loss(read: Callable[..., Tensor], head: Head, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy of a batch, with its graph, under the closed-form head with which training would start.

    ``read`` is `example_features` of a model and its reader.
    """
    x = read(inputs_of(batch), graph=True)
    return F.cross_entropy(SOFTENED * F.linear(x, head.weight, head.bias), batch["labels"])


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Dropout off and no gradient of any parameter, so that the one graph is from x to the loss; undone after."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def _captured(module: nn.Module, *, leaf: bool = False, graph: bool = False) -> Iterator[list[Tensor]]:
    """The inputs of ``module`` in the forwards inside: copies, as a ``leaf`` the start of the loss's graph, or,
    with their own ``graph``, themselves."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if graph:
            seen.append(inputs[0])
            return inputs
        # a copy: the head of a ViT reads a view, which would keep all tokens of every batch
        seen.append(inputs[0].detach().clone().requires_grad_(leaf))
        return (seen[-1], *inputs[1:])

    handle = module.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def _check_labels(labels: Tensor, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"The probe holds a label outside 0..{classes - 1}; give the head one output for each label.")
    if labels.unique().numel() < 2:
        raise DataError(
            "The probe holds a single class, which gives no direction; draw it from at least two classes."
        )


def text_mask(model: PreTrainedModel, batch: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
    """What of x (n, t, d) is no padding; a decoder beside an encoder pads its labels, the mask is the encoder's."""
    mask = batch["labels"] != -100 if model.config.is_encoder_decoder else batch.get("attention_mask")
    return mask if mask is not None and mask.shape == x.shape[:2] else None
