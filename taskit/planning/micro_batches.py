"""How many rows may pass through the model at once, and what the longest of them are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from taskit.backbone.config import WRITING
from taskit.data import Collator, Dataset, RowSize, longest, most_learned, row_sizes
from taskit.memory.conditions import BatchShape
from taskit.planning.recipe import Recipe


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """``size`` rows that pass through the model at once: the longest that train, and the longest held out."""

    size: int
    training: BatchShape
    evaluation: BatchShape


def longest_batches(
    data: Dataset, collator: Collator, recipe: Recipe, seed: int
) -> tuple[tuple[MicroBatch, ...], int]:
    """The micro-batches that may be chosen, the largest first, and the number of rows that train."""
    train, held_out = data.validated(seed)
    splits = [(rows, row_sizes(rows, collator)) for rows in (train, held_out, data.evaluation) if len(rows)]
    counted = data.info.task in WRITING

    def shape(rows: Any, sizes: Sequence[RowSize], count: int) -> BatchShape:
        chosen = [dict(rows[position]) for position in longest(sizes, count)]
        return BatchShape.of(collator(chosen), most_learned(sizes, count) if counted else None)

    found = []
    for size in _choices(recipe, len(train)):
        training, *others = (shape(*split, size) for split in splits)
        found.append(MicroBatch(size, training, max(others or [training], key=lambda one: one.numbers)))
    return tuple(found), len(train)


def _choices(recipe: Recipe, rows: int) -> list[int]:
    """The micro-batch that is named, or the batch in 1, 2, 3, 4, 6, 8, 12, ... parts, as far as they differ."""
    if recipe.micro_batch is not None:
        return [recipe.micro_batch]
    counts = [1, *(many for n in range(recipe.batch_size.bit_length()) for many in (2 << n, 3 << n))]
    sizes = sorted({-(-recipe.batch_size // count) for count in counts}, reverse=True)
    return [size for n, size in enumerate(sizes) if not n or size < rows]
