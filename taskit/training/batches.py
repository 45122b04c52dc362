"""The rows and batches of a run.

Batches come in the order that seed and epoch fix, so that a resumed run skips what it has done.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches
from torch.utils.data import DataLoader

from taskit.data import Collator, Dataset, load, longest_rows
from taskit.data.rows import split
from taskit.errors import RunError
from taskit.planning.plan import Plan
from taskit.planning.recipe import Recipe
from taskit.training.randaugment import Distorted

Batch = dict[str, torch.Tensor]
VALIDATION = 0.1  # of the training rows: chooses the epoch, so that the evaluation rows choose nothing


def load_data(plan: Plan) -> Dataset:
    """The data that ``plan`` was made for.

    Raises:
        RunError: it has changed since.
    """
    data = load(plan.data.source, columns=dict(plan.data.columns), seed=plan.seed)
    if data.info.fingerprint != plan.data.fingerprint:
        raise RunError(f"{plan.data.source} has changed since the plan was made; run taskit plan again.")
    return data


def split_rows(plan: Plan, data: Dataset) -> tuple[Any, Any]:
    """The rows of ``data.train`` for training and for validation, by class where there are classes."""
    strata = data.train["label"] if plan.data.labels else [0] * len(data.train)
    kept, held_out = split(strata, VALIDATION, plan.seed)
    return data.train.select(kept), data.train.select(held_out)


@dataclass(frozen=True, slots=True)
class Batches:
    """Makes loaders; rows are normalised datasets of taskit.data."""

    collator: Collator
    recipe: Recipe
    accelerator: Accelerator
    seed: int

    def once(self, rows: Any) -> DataLoader:
        """All rows, in order, each in one of the processes."""
        return self._loader(rows, None)

    def unshared(self, rows: Any) -> Iterator[Batch]:
        """All rows, in order, in every process alike."""
        for batch in DataLoader(rows, batch_size=self.recipe.batch_size, collate_fn=self.collator):
            yield self._to_device(batch)

    def sample(self, rows: Any, count: int) -> Iterator[Batch]:
        """``count`` of ``rows`` at random by the seed, or all where they are fewer; `unshared`, in every process."""
        return self.unshared(rows.shuffle(seed=self.seed).select(range(min(count, len(rows)))))

    def steps(self, rows: Any, epoch: int, skip: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of each optimizer step of an epoch, without the first ``skip`` steps."""
        accumulation = self.recipe.gradient_accumulation
        if self.recipe.randaugment and "image" in rows.column_names:
            rows = Distorted(rows, self.recipe.randaugment, self.seed, epoch)
        loader = self._loader(rows, torch.Generator().manual_seed(self.seed + epoch))
        group = []
        for batch in skip_first_batches(loader, skip * accumulation) if skip else loader:
            group.append(batch)
            if len(group) == accumulation:
                yield group
                group = []
        if group:
            yield group

    def steps_per_epoch(self, rows: Any) -> int:
        at_once = self.recipe.batch_size * self.accelerator.num_processes * self.recipe.gradient_accumulation
        return -(-len(rows) // at_once)

    def longest(self, rows: Any) -> Callable[[], Batch]:
        """Makes the largest batch that ``rows`` can give, anew at every call."""
        chosen = longest_rows(rows, self.collator, self.recipe.batch_size)
        return lambda: self._to_device(self.collator(chosen))

    def _to_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def _loader(self, rows: Any, order: torch.Generator | None) -> DataLoader:
        loader = DataLoader(
            rows,
            batch_size=self.recipe.batch_size,
            shuffle=order is not None,
            generator=order,
            collate_fn=self.collator,
        )
        return self.accelerator.prepare_data_loader(loader)
