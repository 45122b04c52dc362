"""Batches: normalised rows in, the tensors that `model(**batch)` takes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import datasets

from taskit.data.generation import IGNORED, Encoder
from taskit.data.visual import VisualEncoder

if TYPE_CHECKING:
    import torch

MAX_LENGTH = 512  # tokens, where neither the user nor the tokenizer sets a lower bound


class Collator:
    """Turns a list of rows into one batch of tensors.

    task: "image-classification", "text-classification", "text-generation" or "image-text-to-text".
    processor: an image processor of Transformers, a tokenizer, or a processor that holds both.
    max_length: tokens per row, beside those of an image; None means what the tokenizer allows, at most 512.
    encoder_decoder: for generation, the prompt becomes the encoder's input and the completion the labels.

    A batch of B rows holds `pixel_values` (B, channels, height, width) and `labels` (B), or `input_ids` and
    `attention_mask` (B, T), T the longest row, with `labels` (B), or (B, T) for generation; beside them, for images
    with text, what the processor makes of the images. Rows without a label give a batch without labels. Raises
    DataError for rows that the tokenizer cannot express.
    """

    def __init__(self, task: str, processor, max_length: int | None = None, *, encoder_decoder: bool = False):
        self.task = task
        self.encoder_decoder = encoder_decoder
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        if task != "image-classification":
            # A tokenizer without a limit reports an absurdly large one.
            self.max_length = max_length or min(self.tokenizer.model_max_length, MAX_LENGTH)
            self._encoder = Encoder(self.tokenizer, self.max_length, encoder_decoder)
        if task == "image-text-to-text":
            self.visual = VisualEncoder(processor, self.max_length)

    def __call__(self, rows: Sequence[dict]) -> "dict[str, torch.Tensor]":
        import torch

        if self.task == "image-classification":
            images = [row["image"].convert("RGB") for row in rows]
            batch = dict(self.processor(images=images, return_tensors="pt"))
        elif self.task == "image-text-to-text":
            encoded, pictures = self.visual(rows)
            batch = {**self._pad(encoded), **pictures}
        else:
            batch = self._pad(self.encode(rows))
        if "label" in rows[0]:
            batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch

    def micro_batches(self, rows: Sequence[dict], size: int) -> "list[dict[str, torch.Tensor]]":
        """The rows in batches of at most ``size``: of texts, like lengths together, the longest first.

        Their order is that of ``rows`` where all of them make one batch.
        """
        if len(rows) > size and self.task in ("text-classification", "text-generation"):
            lengths = [len(one["input_ids"]) + len(one.get("labels", ())) for one in self.encode(rows)]
            rows = [rows[k] for k in sorted(range(len(rows)), key=lambda k: -lengths[k])]
        return [self(rows[start : start + size]) for start in range(0, len(rows), size)]

    def size_of(self, encoded: dict[str, list[int]]) -> "RowSize":
        """The size of a row of text that `encode` gave."""
        labels = encoded.get("labels", [])
        counted = labels if self.encoder_decoder else labels[1:]  # a decoder's first token is predicted from nothing
        return RowSize(len(encoded["input_ids"]), len(labels), sum(label != IGNORED for label in counted))

    def question(self, row: dict) -> "dict[str, torch.Tensor]":
        """What a model is to answer: a batch of one row with `prompt`, or `image` and maybe `prompt`, no labels."""
        import torch

        if self.task == "image-text-to-text":
            batch = self([{role: row[role] for role in ("image", "prompt") if role in row}])
            del batch["labels"]
            return batch
        (encoded,) = self.encode([{"prompt": row["prompt"], "completion": ""}])
        ids = encoded["input_ids"]
        if not self._encoder.encoder_decoder:
            ids = [token for token, label in zip(ids, encoded["labels"], strict=True) if label == IGNORED]
        return {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}

    def encode(self, rows: Sequence[dict]) -> list[dict[str, list[int]]]:
        """Token ids per row, truncated and not yet padded."""
        if self.task == "text-generation":
            return [self._encoder(row) for row in rows]
        pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
        texts = [row["text"] for row in rows]
        encoded = self.processor(texts, pairs, truncation=True, max_length=self.max_length)
        return [{key: encoded[key][position] for key in encoded} for position in range(len(rows))]

    def _pad(self, encoded: Sequence[dict[str, list[int]]]) -> "dict[str, torch.Tensor]":
        """Pad on the right, where position ids count from the first token and the loss masks the rest."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        tokenizer = self.tokenizer
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        fill = {"input_ids": pad or 0, "token_type_ids": tokenizer.pad_token_type_id, "labels": IGNORED}
        return {
            key: pad_sequence([torch.tensor(one[key]) for one in encoded], True, fill.get(key, 0))
            for key in encoded[0]
        }


@dataclass(frozen=True, slots=True)
class RowSize:
    """How large a row is: tokens of its input, of its labels (or numbers of its pixels), and how many are learned."""

    inputs: int
    labels: int = 0
    learned: int = 0


def row_sizes(data: datasets.Dataset, collator: Collator) -> list[RowSize]:
    """The size of every row; of classified images, which reach the model at one size, all are alike."""
    if collator.task == "image-classification":
        return [RowSize(0)] * len(data)
    if collator.task == "image-text-to-text":
        return [RowSize(*size) for size in collator.visual.sizes(data)]
    return [collator.size_of(one) for one in collator.encode([dict(row) for row in data])]


def longest(sizes: Sequence[RowSize], count: int) -> list[int]:
    """The positions of the rows that make the largest batch of ``count``, or of all where there are fewer."""
    order = sorted(range(len(sizes)), key=lambda position: -sizes[position].inputs - sizes[position].labels)
    if count > 1:
        # An encoder-decoder pads inputs and labels apart, so that the longest of each must be there; and the image
        # that takes the most tiles may stand beside few words.
        peaks = (
            max(order, key=lambda position: sizes[position].inputs),
            max(order, key=lambda position: sizes[position].labels),
        )
        order = list(dict.fromkeys((*peaks, *order)))
    return order[:count]


def most_learned(sizes: Sequence[RowSize], count: int) -> int:
    """The largest number of learned tokens that ``count`` of the rows can have together."""
    return sum(sorted((size.learned for size in sizes), reverse=True)[:count])


def longest_rows(data: datasets.Dataset, collator: Collator, count: int) -> list[dict]:
    """The rows that make the largest batch of a size."""
    return [dict(data[position]) for position in longest(row_sizes(data, collator), count)]
