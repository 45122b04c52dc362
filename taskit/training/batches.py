"""The rows and batches of a run.

Batches come in the order that seed and epoch fix, so that a resumed run skips what it has done.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from accelerate import Accelerator, skip_first_batches
from torch.utils.data import DataLoader

from taskit.data import Collator, Dataset, load, longest_rows
from taskit.errors import RunError
from taskit.planning.plan import Plan
from taskit.planning.recipe import Recipe
from taskit.training.randaugment import Distorted

Batch = dict[str, torch.Tensor]


def load_data(plan: Plan) -> Dataset:
    """The data that ``plan`` was made for.

    Raises:
        RunError: it has changed since.
    """
    data = load(plan.data.source, columns=dict(plan.data.columns), seed=plan.seed)
    if data.info.fingerprint != plan.data.fingerprint:
        raise RunError(f"{plan.data.source} has changed since the plan was made; run taskit plan again.")
    return data


@dataclass(frozen=True, slots=True)
class Batches:
    """Makes loaders; rows are normalised datasets of taskit.data."""

    collator: Collator
    recipe: Recipe
    accelerator: Accelerator
    seed: int

    def once(self, rows: Any) -> DataLoader:
        """All rows, in order, each in one of the processes."""
        return self.accelerator.prepare_data_loader(
            DataLoader(rows, batch_size=self.at_once, collate_fn=self.collator)
        )

    @property
    def at_once(self) -> int:
        """Rows that pass through the model at once."""
        return self.recipe.micro_batch or self.recipe.batch_size

    def unshared(self, rows: Any) -> Iterator[Batch]:
        """All rows, in order, in every process alike."""
        for batch in DataLoader(rows, batch_size=self.at_once, collate_fn=self.collator):
            yield self._to_device(batch)

    def sample(self, rows: Any, count: int) -> Iterator[Batch]:
        """``count`` of ``rows`` at random by the seed, or all where they are fewer; `unshared`, in every process."""
        return self.unshared(rows.shuffle(seed=self.seed).select(range(min(count, len(rows)))))

    def steps(self, rows: Any, epoch: int, skip: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of each optimizer step of an epoch, without the first ``skip`` steps."""
        if self.recipe.randaugment and "image" in rows.column_names:
            rows = Distorted(rows, self.recipe.randaugment, self.seed, epoch)
        loader = self.accelerator.prepare_data_loader(
            DataLoader(
                rows,
                batch_size=self.recipe.batch_size,
                shuffle=True,
                generator=torch.Generator().manual_seed(self.seed + epoch),
                collate_fn=partial(self.collator.micro_batches, size=self.at_once),
            )
        )
        yield from cast(Iterable[list[Batch]], skip_first_batches(loader, skip) if skip else loader)

    def steps_per_epoch(self, rows: Any) -> int:
        return -(-len(rows) // (self.recipe.batch_size * self.accelerator.num_processes))

    def longest(self, rows: Any) -> Callable[[], Batch]:
        """Makes the largest micro-batch that ``rows`` can give, anew at every call."""
        chosen = longest_rows(rows, self.collator, self.at_once)
        return lambda: self._to_device(self.collator(chosen))

    def _to_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
