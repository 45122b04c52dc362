"""The form of AdapterSoup and LoraHub: a LoRA written once, from learned ones, and a head fitted on its features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taskit.errors import PlanError
from taskit.head import fit_head
from taskit.methods.compose import RULES, Adapter, composed_ranks
from taskit.methods.experts import load_experts
from taskit.methods.form import Decisions, Preparation, Ranks, lora_pair
from taskit.methods.lorahub import CLASS_EXAMPLES, EVALUATIONS, EXAMPLES, seek_weights
from taskit.methods.method import inserted
from taskit.probe import example_features
from taskit.training.evaluation import token_losses
from taskit.training.probe_head import fit_linear_head
from taskit.untrained import Resting

POOL = "pool"  # the learned tensors beside the weight that is composed of them, (adapters, *weight.shape)


@dataclass(frozen=True, slots=True)
class Composed(Resting):
    """``adapters`` are (name, revision) in ``zoo``; where some are ``pooled``, their weights are sought (LoraHub)."""

    adapters: tuple[tuple[str, str], ...]
    zoo: str | None
    rule: str
    pooled: int

    def insert(self, model: Any, ranks: Ranks) -> None:
        super(Composed, self).insert(model, ranks)
        for name in inserted(ranks) if self.pooled else ():
            for side in lora_pair(model, name):
                empty = side.weight.new_empty(self.pooled, *side.weight.shape)
                side.register_buffer(POOL, empty, persistent=False)

    @torch.no_grad()
    def prepare(self, preparation: Preparation) -> Decisions:
        """Write the composed LoRA, then the head.  Deterministic, by the plan's seed."""
        model, plan = preparation.model.eval(), preparation.plan
        learned = load_experts(plan, self.zoo, self.adapters)
        ranks = [{name: len(branch.a) for name, branch in one.items()} for one in learned]
        planned = {name: rank for name, rank in plan.ranks.items() if rank}
        if composed_ranks(ranks, self.rule) != planned:
            raise PlanError(
                "The ranks of the plan are not those of the adapters that it composes, which decide them; run taskit "
                "plan again."
            )
        count = len(learned)
        weights = self._sought(preparation, learned) if self.pooled else (1 / count,) * count
        named = {name: round(weight, 4) for (name, _), weight in zip(self.adapters, weights, strict=True)}
        preparation.tell("composed of " + ", ".join(f"{weight:+.3f} {name}" for name, weight in named.items()))
        self._write(model, learned, weights)
        if plan.data.labels:
            preparation.tell("fitting a linear head on the composed features")
            fit_linear_head(model, _head(model), preparation.batches(), preparation.held_out())
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

    def _sought(self, preparation: Preparation, learned: Sequence[Adapter]) -> Sequence[float]:
        """LoraHub's weights, by its loss on a few rows; the LoRA is written anew from the pool for each try."""
        model, plan = preparation.model, preparation.plan
        pairs = {name: lora_pair(model, name) for name in learned[0]}
        for name, (down, up) in pairs.items():
            for position, one in enumerate(learned):
                down.get_buffer(POOL)[position].copy_(one[name].a)
                up.get_buffer(POOL)[position].copy_(one[name].scaling * one[name].b)
        classes = len(plan.data.labels)
        batches = list(preparation.draw(max(EXAMPLES, CLASS_EXAMPLES * classes)))
        loss = partial(_class_loss, model, batches, classes) if classes else partial(_text_loss, model, batches)

        def try_weights(weights: Sequence[float]) -> float:
            for sides in pairs.values():
                for side in sides:
                    w = torch.tensor(weights, dtype=side.weight.dtype, device=side.weight.device)
                    side.weight.copy_(torch.tensordot(w, side.get_buffer(POOL), 1))
            return loss()

        def tell(tried: int, least: float) -> None:
            if tried in (1, EVALUATIONS):
                preparation.tell(f"mixture {tried} of {EVALUATIONS}: objective {least:.4f}")

        return seek_weights(try_weights, len(learned), plan.seed, tell)


def _class_loss(model: Any, batches: Sequence[Mapping[str, Tensor]], classes: int) -> float:
    """Mean cross-entropy in nats of each example under the closed-form head fitted to all the others."""
    labels = torch.cat([batch["labels"] for batch in batches])
    inputs = [{name: tensor for name, tensor in batch.items() if name != "labels"} for batch in batches]
    features = torch.cat([example_features(model, _head(model), one) for one in inputs])
    if not features.isfinite().all():
        return float("inf")
    return float(F.cross_entropy(fit_head(features, labels, classes).held_out, labels))


def _text_loss(model: Any, batches: Sequence[Mapping[str, Tensor]]) -> float:
    """Mean over the examples of the mean cross-entropy of their target tokens, in nats."""
    rows = []
    for batch in batches:
        sums, counts = token_losses(model(**batch).logits, batch["labels"], model.config.is_encoder_decoder)
        rows.append(sums / counts.clamp_min(1))
    return float(torch.cat(rows).mean())


def _head(model: Any) -> nn.Linear:
    """The last linear of the head that PEFT keeps beside the original one."""
    return [
        module
        for name, module in model.named_modules()
        if ".modules_to_save." in name
        and isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
    ][-1]
