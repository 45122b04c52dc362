"""The mean loss of a batch.  Of text, in chunks of the tokens that are learned, so that all logits never exist.

The logits of a batch, tokens x words, are the largest tensor of a language model by far.  Here its head, taken apart
(language_head.py), is applied to one chunk of learned tokens after the other, and the gradient is made in the same
pass: the loss is the end of the graph, so that nothing has to be kept but the gradient at the hidden states, and at
what is trained in the head.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, pad

from taskit.errors import BackboneError
from taskit.step.language_head import Batch, Head, base_of, cannot_chunk, take_apart
from taskit.step.targets import inputs_of

CHUNK_BYTES = 32 * 2**20  # of a chunk's logits in float32
LEAST_CHUNK = 64  # tokens: with fewer the head's product is limited by reading its weight
IGNORED = -100
# What a decoder whose loss is known uses for it, by name.
USUAL = {"loss", "loss_function", "aux_loss", "router_aux_loss_coef", "load_balancing_loss_func"}


def loss_of(
    model: Any, batch: Batch, chunk: int | None = None, learned: int | None = None, smoothing: float = 0.0
) -> Tensor:
    """The mean loss of a batch, with its graph.

    With soft targets (rows, classes) their cross-entropy; of text, where ``chunk`` is given, the cross-entropy of the
    learned tokens, so many at a time, with label ``smoothing``, and what a mixture of experts adds to it; otherwise
    the model's own loss.  ``learned`` says how many tokens are learned where labels hold no numbers, by default all.

    Raises:
        BackboneError: ``chunk`` is given, and the head cannot be taken apart; `loss_chunk` tells.
    """
    labels = batch["labels"]
    if labels.is_floating_point():
        return cross_entropy(model(**inputs_of(batch)).logits.float(), labels)
    if chunk is None or labels.ndim == 1:
        return model(**batch).loss
    taken = take_apart(model, batch)
    index, targets = _learned_tokens(labels, model.config.is_encoder_decoder, learned)
    _require_labels(taken.hidden, labels)
    settings = _Settings(taken.head, chunk, smoothing, torch.is_grad_enabled())
    loss: Any = _ChunkedLoss.apply(taken.hidden, index, targets, settings, *taken.head.trained())
    return loss if taken.auxiliary is None else loss + taken.auxiliary.to(loss.device)


@torch.no_grad()
def row_losses(model: Any, batch: Batch, chunk: int | None, learned: int | None = None) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy and number of the learned tokens of each row, (rows,) both; arguments as of `loss_of`.

    Where ``chunk`` is None the model computes all logits.
    """
    labels, encoder_decoder = batch["labels"], model.config.is_encoder_decoder
    counts = (labels[:, 0 if encoder_decoder else 1 :] != IGNORED).sum(1)
    if chunk is None:
        logits = model(**batch).logits
        if not encoder_decoder:
            logits, labels = logits[:, :-1], labels[:, 1:]
        # row by row, so that no second copy of all logits is needed
        sums = [cross_entropy(one.float(), of, reduction="sum") for one, of in zip(logits, labels, strict=True)]
        return torch.stack(sums), counts
    taken = take_apart(model, batch)
    index, targets = _learned_tokens(labels, encoder_decoder, learned)
    _require_labels(taken.hidden, labels)
    hidden = taken.hidden.flatten(0, 1).index_select(0, index)
    sums = torch.zeros(len(labels), device=hidden.device)
    rows = index // labels.shape[1]
    for part, of, row in zip(hidden.split(chunk), targets.split(chunk), rows.split(chunk), strict=True):
        if len(part):
            logits = taken.head.logits(part[None])[0].float()
            sums.index_add_(0, row, cross_entropy(logits, of, reduction="none"))
    return sums, counts


@torch.no_grad()
def loss_chunk(model: Any) -> int | None:
    """Tokens in a chunk of the loss of ``model``, a power of two; None where it has to keep its own loss.

    That is where it writes no text, or does more to its logits, or in its loss, than can be done in chunks.  The
    model is asked: it runs on two tokens, where its weights are; on meta, inside ``simulated_device``.
    """
    base = base_of(model)
    if base.get_output_embeddings() is None or not (base.config.is_encoder_decoder or _is_usual(base)):
        return None
    weight = base.get_input_embeddings().weight
    tokens = torch.zeros((1, 2), dtype=torch.long, device=weight.device)
    try:
        with _experts_for_meta(base) if _without_numbers(weight) else nullcontext():
            words = take_apart(model, {"input_ids": tokens, "labels": tokens}).head.words
    except BackboneError:
        return None
    return max(1 << (CHUNK_BYTES // (4 * words)).bit_length() >> 1, LEAST_CHUNK)


def _is_usual(base: Any) -> bool:
    """Whether the loss of a decoder is Transformers' of the token after each, and what experts add to it, alone.

    Read off the names in its forward: of 275 decoders of Transformers 5 those of BART's kind do not shift the labels,
    and a few more add losses of their own.
    """
    from transformers.loss.loss_utils import ForCausalLMLoss

    used = {name for name in inspect.unwrap(type(base).forward).__code__.co_names if "loss" in name.lower()}
    return "loss_function" in used and used <= USUAL and base.loss_function is ForCausalLMLoss


@contextmanager
def _experts_for_meta(base: Any) -> Iterator[None]:
    """Inside, experts multiply in batches: their usual kernel has a rule for meta tensors of bfloat16 alone."""
    config = base.config.get_text_config()
    before = config._experts_implementation
    config._experts_implementation = "batched_mm"
    try:
        yield
    finally:
        config._experts_implementation = before


def _learned_tokens(labels: Tensor, encoder_decoder: bool, learned: int | None) -> tuple[Tensor, Tensor]:
    """Positions of the learned tokens among those of all rows, and their targets, (learned,) both."""
    if not encoder_decoder:
        labels = pad(labels[:, 1:], (0, 1), value=IGNORED)
    flat = labels.flatten()
    kept = flat != IGNORED
    if _without_numbers(labels):
        most = flat.numel() - (0 if encoder_decoder else len(labels))
        index = flat.new_zeros(most if learned is None else learned)
    else:
        index = kept.nonzero().squeeze(1)
    return index, flat.index_select(0, index)


def _without_numbers(tensor: Tensor) -> bool:
    """Whether a tensor is on meta, whatever it says that it is on."""
    with torch._C.DisableTorchFunction():
        return tensor.is_meta


def _require_labels(hidden: Tensor, labels: Tensor) -> None:
    if hidden.shape[:2] != labels.shape:
        raise cannot_chunk("its head is not given the tokens of the batch")


@dataclass(frozen=True, slots=True)
class _Settings:
    head: Head
    chunk: int
    smoothing: float
    graph: bool  # whether gradients are wanted at all


class _ChunkedLoss(torch.autograd.Function):
    """Mean cross-entropy of the tokens at ``index``, whose gradient is made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, index: Tensor, targets: Tensor, settings: _Settings, *trained: Tensor
    ) -> Tensor:
        taken = hidden.flatten(0, 1).index_select(0, index)
        below = settings.graph and hidden.requires_grad
        # where no token is learned, gradients of zero: processes add up theirs
        sums = [None if len(index) else torch.zeros_like(one, dtype=torch.float32) for one in trained]
        loss = torch.zeros((), device=hidden.device)
        for part, of in zip(taken.split(settings.chunk), targets.split(settings.chunk), strict=True):
            if not len(part):
                break
            value, gradients = _chunk_loss(part, of, settings, trained, below)
            loss += value
            if below:
                part.copy_(gradients.pop(0))  # nobody reads the hidden states again
            for place, gradient in enumerate(gradients):
                if gradient is not None:  # of an adapter that is not active
                    before = sums[place]
                    sums[place] = gradient.float() if before is None else before.add_(gradient)
        count = max(len(index), 1)
        made = [None if one is None else one.div_(count).to(of.dtype) for one, of in zip(sums, trained, strict=True)]
        ctx.shape = hidden.shape
        ctx.save_for_backward(index, taken.div_(count) if below else None, *made)
        return loss.div_(count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Any, ...]:
        index, gradient, *made = ctx.saved_tensors
        below = None
        if gradient is not None:
            rows, tokens, width = ctx.shape
            below = gradient.new_zeros(rows * tokens, width).index_copy_(0, index, gradient).mul_(scale)
            below = below.view(ctx.shape)
        return below, None, None, None, *(None if one is None else one * scale for one in made)


def _chunk_loss(
    hidden: Tensor, targets: Tensor, settings: _Settings, trained: tuple[Tensor, ...], below: bool
) -> tuple[Tensor, list[Any]]:
    """Summed loss of hidden states (tokens, width); its gradients at them, where ``below``, and at ``trained``."""
    hidden = hidden.detach()[None].requires_grad_(below)
    wanted = [*([hidden] if below else []), *(trained if settings.graph else ())]
    with torch.set_grad_enabled(bool(wanted)):
        logits = settings.head.logits(hidden)[0]
    with torch.no_grad():
        log_p, target, smooth = logits.log_softmax(-1, torch.float32), targets[:, None], settings.smoothing
        loss = -(1 - smooth) * log_p.gather(1, target).sum()
        if smooth:
            loss -= smooth / log_p.shape[1] * log_p.sum()
        if not wanted:
            return loss, []
        gradient = log_p.exp_()  # of the logits: p - q, in place, since a tensor of this size takes time to make
        if smooth:
            gradient -= smooth / log_p.shape[1]
        gradient.scatter_add_(1, target, gradient.new_full((), smooth - 1).expand(target.shape))
    gradients = [*torch.autograd.grad(logits, wanted, gradient.to(logits.dtype), allow_unused=True)]
    if below:
        gradients[0] = gradients[0][0]
    return loss, gradients
