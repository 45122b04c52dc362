"""What a task's data look like to the backbone: the mean feature, by which AdapterSoup finds domains alike.

The paper embeds 100 samples of a domain with a sentence encoder.  Here the backbone itself embeds, so that nothing
else is shipped and images are served too: the feature x is what the head reads, averaged over the rows and, where
text is written, over the tokens that count (our reading).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from taskit.backbone.config import WRITING
from taskit.backbone.heads import final_linear
from taskit.step.targets import inputs_of
from taskit.transfer.probe import example_features, frozen, text_mask, token_features

SAMPLES = 100  # rows of each task, as in the paper
DIGITS = 5  # significant ones in files


def embed_rows(model: Any, rows: Any, collator: Any, batch_size: int, seed: int) -> tuple[float, ...]:
    """`mean_feature` of SAMPLES rows, drawn by ``seed``, of normalised ``rows``; ``model`` has no adapter yet."""
    drawn = rows.shuffle(seed=seed).select(range(min(SAMPLES, len(rows))))
    # images may take a batch by tiles, so that a row is only known where it comes alone
    step = 1 if collator.task == "image-text-to-text" else batch_size
    batches = (collator([dict(row) for row in part]) for part in _parts(drawn, step))
    return mean_feature(model, collator.task, batches)


def mean_feature(model: Any, task: str, batches: Iterable[Mapping[str, Tensor]]) -> tuple[float, ...]:
    """Mean x (d,) over the examples of all batches; where text is written, of each over its tokens."""
    device = next(model.parameters()).device
    with frozen(model):
        return mean_row(_features(model, task, {k: v.to(device) for k, v in batch.items()}) for batch in batches)


def mean_row(parts: Iterable[Tensor]) -> tuple[float, ...]:
    """The mean of all rows (n, d) of all parts, rounded as files have it."""
    mean = torch.cat(list(parts)).double().mean(0)
    return tuple(float(f"{value:.{DIGITS}g}") for value in mean.tolist())


def _features(model: Any, task: str, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean x of each example, (n, d)."""
    if task not in WRITING:
        return example_features(model, final_linear(model), inputs_of(batch))
    # an encoder-decoder makes the inputs of its decoder out of the labels
    x = token_features(model, model.get_output_embeddings(), batch)
    return pooled(x, text_mask(model, batch, x))


def pooled(x: Tensor, mask: Tensor | None) -> Tensor:
    """(n, d): x itself, or where it is (n, t, d) its mean over the tokens that ``mask`` (n, t) counts."""
    if x.ndim == 2:
        return x
    weights = (torch.ones(x.shape[:2], device=x.device) if mask is None else mask).to(x.dtype)[..., None]
    return (x * weights).sum(1) / weights.sum(1).clamp_min(1)


def _parts(rows: Sequence[Any], size: int) -> Iterable[list[Any]]:
    remaining = iter(rows)
    while part := list(islice(remaining, size)):
        yield part
