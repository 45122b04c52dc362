"""The targets of a batch, its ``labels``: how many the loss counts; -100 is left out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def inputs_of(batch: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The batch without its ``labels``: what the model computes its logits from."""
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def target_count(batch: "Mapping[str, torch.Tensor]", encoder_decoder: bool) -> int:
    """How many targets the mean loss of a batch is over: rows, or tokens that are not left out."""
    labels = batch["labels"]
    if labels.ndim == 1 or labels.is_floating_point():
        return len(labels)
    return int((labels[:, 0 if encoder_decoder else 1 :] != -100).sum())


def target_shares(micro_batches: "Sequence[Mapping[str, torch.Tensor]]", encoder_decoder: bool) -> list[float]:
    """How much each micro-batch counts in the loss of a step: by its targets, as in one whole batch."""
    targets = [target_count(batch, encoder_decoder) for batch in micro_batches]
    return [count / max(sum(targets), 1) for count in targets]
