"""The parametrization of Pear: ordinary LoRA until the warm-up is over, then equal modules share their matrices."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from taskit.step.loss import loss_chunk, loss_of
from taskit.step.parametrization import Decisions, Parametrization, Preparation, Ranks, lora_pair

if TYPE_CHECKING:
    from taskit.backbone.target_modules import Location

BATCHES = 64  # on which the pairs are scored
KNOWLEDGE = {"DA": (1.0, 1.0), "SBA": (0.5, 0.5)}  # of the shared pair, and of the one that it replaces

Shape = tuple[int, int]  # (in, out)


@dataclass(frozen=True, slots=True)
class Shared(Parametrization):
    """``shapes`` are (in, out) of each location, ``warmup`` the share of the epochs before anything is shared."""

    shapes: Mapping[str, Shape]
    ratio: float
    warmup: float
    checkpoint: str

    def parameters(self, places: "Sequence[Location]", ranks: Ranks) -> int:  # noqa: ARG002
        classes = classes_of(self.shapes, ranks)
        kept = ((names[0], len(names) - pruned_count(names, self.ratio)) for names in classes)
        return sum(count * ranks[name] * sum(self.shapes[name]) for name, count in kept)

    def epochs(self, total: int) -> int:
        return max(total - self._warmup_epochs(total), 1)

    def prepare(self, preparation: Preparation) -> Decisions:
        model, planned = preparation.model, preparation.ranks
        preparation.warm_up(self._warmup_epochs(preparation.epochs))
        names = [name for name, rank in planned.items() if rank]
        scores = contributions(model, names, preparation.batches())
        sharing: dict[str, str] = {}
        for names in classes_of(self.shapes, planned):
            sharing |= match({name: scores[name] for name in names}, self.ratio)
        if self.checkpoint in KNOWLEDGE:
            for pruned, donor in sharing.items():
                _take_over(model, pruned, donor, *KNOWLEDGE[self.checkpoint])
        return {"sharing": sharing, "scores": scores}

    def begin(self, model: Any, decisions: Decisions | None) -> None:
        assert decisions is not None
        for pruned, donor in decisions["sharing"].items():
            for ours, theirs in zip(lora_pair(model, pruned), lora_pair(model, donor), strict=True):
                ours.weight = theirs.weight

    def collapse(self, model: Any) -> float:
        """Every module gets a separate copy: tied tensors cannot be written as safetensors."""
        seen: set[int] = set()
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, nn.Parameter) and id(weight) in seen:
                module.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
            seen.add(id(weight))
        return 0.0

    def _warmup_epochs(self, total: int) -> int:
        return max(round(self.warmup * total), 1)


def contributions(model: Any, names: Sequence[str], batches: Any) -> dict[str, float]:
    """First-order Taylor score of each pair: |<B, dL/dB>|, which is |<dW, dL/d dW>|, averaged over ``batches``."""
    sums: dict[str, float] = defaultdict(float)
    count, chunk = 0, loss_chunk(model)
    model.eval()
    for batch in islice(batches, BATCHES):
        model.zero_grad()
        loss_of(model, batch, chunk).backward()
        count += 1
        for name in names:
            weight = lora_pair(model, name)[1].weight
            if weight.grad is not None:  # a module that the loss does not depend on has none
                sums[name] += abs(float((weight.detach() * weight.grad).sum()))
    model.zero_grad()
    return {name: sums[name] / count for name in names}


@torch.no_grad()
def _take_over(model: Any, pruned: str, donor: str, keep: float, take: float) -> None:
    """The knowledge checkpoint: factors are added, not products, as in the paper."""
    for ours, theirs in zip(lora_pair(model, donor), lora_pair(model, pruned), strict=True):
        ours.weight.mul_(keep).add_(theirs.weight, alpha=take)


def classes_of(shapes: Mapping[str, Shape], ranks: Ranks) -> list[list[str]]:
    """The inserted locations that can share, those of equal shape and rank, each class in the order of ``ranks``."""
    classes: dict[tuple[Shape, int], list[str]] = {}
    for name, rank in ranks.items():
        if rank:
            classes.setdefault((shapes[name], rank), []).append(name)
    return list(classes.values())


def match(scores: Mapping[str, float], ratio: float) -> dict[str, str]:
    """Pruned location -> the kept one whose LoRA it shares, for one class.

    The floor(ratio n) lowest scores are pruned, and the highest of them gets the LoRA of the highest of all; where
    more are pruned than kept, the kept ones are gone through again.  Ties fall by position.

    >>> match({"a": 0.1, "b": 0.5, "c": 0.2, "d": 0.3, "e": 0.9, "f": 0.7}, 0.5)
    {'d': 'e', 'c': 'f', 'a': 'b'}
    """
    ranked = sorted(scores, key=lambda name: -scores[name])
    count = int(ratio * len(ranked))
    kept, pruned = ranked[: len(ranked) - count], ranked[len(ranked) - count :]
    return {name: kept[i % len(kept)] for i, name in enumerate(pruned)}


def pruned_count(names: Sequence[str], ratio: float) -> int:
    """How many of a class are pruned."""
    return int(ratio * len(names))
