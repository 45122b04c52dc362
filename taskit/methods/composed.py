"""The parametrization of AdapterSoup and LoraHub: a LoRA that is written once, from learned ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from taskit.backbone.heads import trained_head
from taskit.errors import PlanError
from taskit.methods.compose import RULES, Adapter, composed_ranks
from taskit.methods.experts import load_experts
from taskit.methods.lorahub import CLASS_EXAMPLES, EVALUATIONS, EXAMPLES, seek_weights
from taskit.methods.method import inserted
from taskit.step.loss import loss_chunk, row_losses
from taskit.step.parametrization import Decisions, FrozenParametrization, Preparation, Ranks, lora_pair
from taskit.step.targets import inputs_of
from taskit.transfer.probe import example_features
from taskit.transfer.ridge_head import fit_head
from taskit.zoo.lora_branch import Branch

HEAD_COPIES = 5  # of the features, in float64, while the closed-form head is fitted
POOL = "pool"  # the learned tensors beside the weight that is composed of them, (adapters, *weight.shape)


@dataclass(frozen=True, slots=True)
class Composed(FrozenParametrization):
    """``adapters`` are (name, revision) in ``zoo``; mixed with the weights that LoraHub's search
    finds where ``searched``, else alike.

    All of them are in memory until the run ends: ``pooled`` times what is composed of them.
    """

    adapters: tuple[tuple[str, str], ...]
    zoo: str | None
    rule: str
    searched: bool

    @property
    def pooled(self) -> int:
        return len(self.adapters) if self.rule == "factors" else 1

    def insert(self, model: Any, ranks: Ranks) -> None:
        super(Composed, self).insert(model, ranks)
        for name in inserted(ranks):
            for side in lora_pair(model, name):
                if side.weight.is_meta:  # a rehearsal; otherwise they come with their numbers
                    side.register_buffer(POOL, side.weight.new_empty(self.pooled, *side.weight.shape))
        head = trained_head(model)
        if self.searched and head is not None and head.weight.is_meta:
            rows = max(EXAMPLES, CLASS_EXAMPLES * head.out_features)
            fitted = torch.empty(HEAD_COPIES, rows, head.in_features, dtype=torch.float64, device="meta")
            model.register_buffer(POOL, fitted)

    @torch.no_grad()
    def prepare(self, preparation: Preparation) -> Decisions:
        """Write the composed LoRA.  Deterministic, by the plan's seed."""
        model = preparation.model.eval()
        learned = load_experts(preparation.backbone, preparation.data, self.zoo, self.adapters)
        ranks = [{name: len(branch.a) for name, branch in one.items()} for one in learned]
        planned = {name: rank for name, rank in preparation.ranks.items() if rank}
        if composed_ranks(ranks, self.rule) != planned:
            raise PlanError(
                "The ranks of the plan are not those of the adapters that it composes, which decide them; run taskit "
                "plan again."
            )
        if self.searched:
            weights = _sought(preparation, learned)
        else:
            weights = (1 / len(learned),) * len(learned)
            self._write(model, learned, weights)
        named = {name: round(weight, 4) for (name, _), weight in zip(self.adapters, weights, strict=True)}
        preparation.on_progress("composed of " + ", ".join(f"{weight:+.3f} {name}" for name, weight in named.items()))
        return {"weights": named}

    def collapse(self, model: Any) -> float:
        for module in model.modules():
            if POOL in module._buffers:
                delattr(module, POOL)
        return 0.0

    def _write(self, model: Any, learned: Sequence[Adapter], weights: Sequence[float]) -> None:
        """One location at a time, so that little is in memory twice."""
        for name in dict.fromkeys(name for one in learned for name in one):
            here = [{name: one[name]} if name in one else {} for one in learned]
            branch = RULES[self.rule](here, weights)[name]
            down, up = lora_pair(model, name)
            down.weight.copy_(branch.a)
            up.weight.copy_(branch.b)


def _sought(preparation: Preparation, learned: Sequence[dict[str, Branch]]) -> Sequence[float]:
    """LoraHub's weights, by its loss on a few rows; leaves the LoRA that is composed with them in the model."""
    model, count = preparation.model, len(learned)
    sides = _pool(model, learned)
    classes = len(preparation.data.labels)
    # drawn anew for each try, so that one batch is in memory at a time
    batches = partial(preparation.draw, max(EXAMPLES, CLASS_EXAMPLES * classes))
    if classes:
        loss = partial(_class_loss, model, batches, classes)
    else:
        loss = partial(_text_loss, model, batches, loss_chunk(model))

    def write(weights: Sequence[float]) -> None:
        for side in sides:
            w = torch.tensor(weights, dtype=side.weight.dtype, device=side.weight.device)
            side.weight.copy_(torch.tensordot(w, side.get_buffer(POOL), 1))

    def loss_with(weights: Sequence[float]) -> float:
        write(weights)
        return loss()

    def on_progress(tried: int, least: float) -> None:
        if tried in (1, EVALUATIONS):
            preparation.on_progress(f"mixture {tried} of {EVALUATIONS}: objective {least:.4f}")

    weights = seek_weights(loss_with, count, preparation.seed, on_progress)
    write(weights)
    return weights


def _pool(model: Any, learned: Sequence[dict[str, Branch]]) -> list[Any]:
    """The linears of the LoRA, each with the learned tensors for it in a buffer; ``learned`` is used up."""
    sides = []
    for name in list(learned[0]):
        branches = [one.pop(name) for one in learned]
        down, up = lora_pair(model, name)
        for side, parts in ((down, [b.a for b in branches]), (up, [b.scaling * b.b for b in branches])):
            side.register_buffer(POOL, torch.stack(parts).to(side.weight), persistent=False)
            sides.append(side)
    return sides


def _class_loss(model: Any, batches: Callable[[], Iterable[Mapping[str, Tensor]]], classes: int) -> float:
    """Mean cross-entropy in nats of each example under the closed-form head fitted to all the others."""
    xs, ys, head = [], [], trained_head(model)
    assert head is not None
    for batch in batches():
        xs.append(example_features(model, head, inputs_of(batch)))
        ys.append(batch["labels"])
    features, labels = torch.cat(xs), torch.cat(ys)
    if not features.isfinite().all():
        return float("inf")
    return float(F.cross_entropy(fit_head(features, labels, classes).held_out, labels))


def _text_loss(model: Any, batches: Callable[[], Iterable[Mapping[str, Tensor]]], chunk: int | None) -> float:
    """Mean over the examples of the mean cross-entropy of their target tokens, in nats."""
    rows = []
    for batch in batches():
        sums, counts = row_losses(model, batch, chunk)
        rows.append(sums / counts.clamp_min(1))
    return float(torch.cat(rows).mean())
