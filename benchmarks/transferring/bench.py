"""One task on one backbone, loaded once, so that many strategies can be trained from the same start and scored.

A bare loop around the product's own parts (`adapt`, `train_step`, the fitted head softened): the run folder, its
metering and its checkpoints would cost more than these small trainings.
"""

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from benchmarks.transferring.families import Family
from taskit.backbone.heads import final_linear, head_names
from taskit.backbone.loading import load_model
from taskit.backbone.processors import make_collator
from taskit.backbone.sources import find_backbone
from taskit.backbone.target_modules import Location, find_locations
from taskit.data import load
from taskit.data.rows import split
from taskit.planning.prepared_task import PROBE_ROWS
from taskit.planning.recipe import Recipe
from taskit.step.lora import adapt
from taskit.step.step import make_optimizer, train_step
from taskit.training.linear_head import fit_linear_head
from taskit.transfer.ridge_head import SOFTENED

HELD_OUT = 0.15  # of the training rows: chooses learning rates
RATE = 2e-3  # of what is given no other

Batch = dict[str, Tensor]


@dataclass
class Bench:
    """A task at its start: frozen backbone with a fitted head, and all rows as batches."""

    family: Family
    locations: tuple[Location, ...]
    model: Any
    head: torch.nn.Linear
    task: str
    train_rows: list[Any]
    validation: list[Batch]
    test: list[Batch]
    collator: Any
    recipe: Recipe
    seed: int

    @classmethod
    def open(cls, family: Family, source: Path, seed: int, dtype: str = "float32") -> "Bench":
        data, backbone = load(source, seed=seed), find_backbone(family.backbone, dtype=dtype)
        collator = make_collator(backbone, data.info.task, family.max_length)
        kept, held_out = split(data.train["label"], HELD_OUT, seed)
        model = load_model(backbone, task=data.info.task, labels=data.info.labels)
        head = final_linear(model)
        recipe = Recipe(epochs=family.epochs, batch_size=family.batch_size, max_length=family.max_length)
        random.Random(seed).shuffle(kept)  # images come class by class, and a probe is the first rows
        rows = [data.train[i] for i in kept]

        def batches(chosen: Sequence[Any]) -> list[Batch]:
            size = family.batch_size
            return [collator(list(chosen[i : i + size])) for i in range(0, len(chosen), size)]

        validation = batches([data.train[i] for i in held_out])
        test = batches(sorted(data.evaluation, key=lambda row: len(row.get("text", ""))))  # less padding
        fit_linear_head(model, head, batches(rows), validation)
        places = find_locations(model)
        return cls(family, places, model, head, data.info.task, rows, validation, test, collator, recipe, seed)

    @property
    def names(self) -> list[str]:
        return [place.name for place in self.locations]

    def probe(self) -> list[Batch]:
        """The rows on which similarity and importance are predicted."""
        rows, size = self.train_rows[:PROBE_ROWS], self.family.batch_size
        return [self.collator(rows[i : i + size]) for i in range(0, len(rows), size)]

    def further(self) -> list[Batch]:
        """The other training rows, on which the stand-in head is fitted and the trial is made."""
        rows, size = self.train_rows[PROBE_ROWS:], self.family.batch_size
        return [self.collator(rows[i : i + size]) for i in range(0, len(rows), size)]

    def train(
        self,
        ranks: Mapping[str, int],
        *,
        lr: float | None = None,
        epochs: int | None = None,
        make: Callable[[Any, tuple[str, ...]], Any] | None = None,
        started: Callable[[Any], None] = lambda _: None,
    ) -> Any:
        """A copy of the model with ``ranks`` trained; the bench keeps its start.

        ``make`` makes of the model and its heads what is trained instead of a plain LoRA of ``ranks``; ``started``
        is given the result before its first step.
        """
        recipe, lr, epochs = self.recipe, lr or RATE, epochs or self.recipe.epochs
        torch.manual_seed(self.seed)
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for parameter in final_linear(model).parameters():
                parameter.mul_(SOFTENED)
        heads = head_names(model, self.task)
        model = (make(model, heads) if make else adapt(model, ranks, heads, self.task)).train()
        started(model)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        lora = [p for name, p in named if "lora_" in name]
        heads = [p for name, p in named if "lora_" not in name]
        groups = [{"params": lora}, {"params": heads, "lr": lr * SOFTENED}]
        optimizer = make_optimizer("adamw", [group for group in groups if group["params"]], lr, recipe.weight_decay)
        size, count = recipe.batch_size, len(self.train_rows)
        steps = epochs * -(-count // size)
        schedule = get_cosine_schedule_with_warmup(optimizer, round(recipe.warmup * steps), steps)
        for epoch in range(epochs):
            order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
            for start in range(0, count, size):
                train_step(
                    model, optimizer, [self.collator([self.train_rows[i] for i in order[start : start + size]])]
                )
                schedule.step()
        return model.eval()

    def full(self, rank: int = 8) -> dict[str, int]:
        """LoRA of ``rank`` everywhere."""
        return dict.fromkeys(self.names, rank)


@torch.no_grad()
def logits(model: Any, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    """(n, classes) and the labels (n,)."""
    found = [model(**{k: v for k, v in batch.items() if k != "labels"}).logits.float() for batch in batches]
    return torch.cat(found), torch.cat([batch["labels"] for batch in batches])


def accuracy(model: Any, batches: Sequence[Batch]) -> float:
    scores, labels = logits(model, batches)
    return float((scores.argmax(-1) == labels).float().mean())
