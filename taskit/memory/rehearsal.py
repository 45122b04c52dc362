"""Rehearse whole training steps of one strategy on fake tensors and read the peak off them.

Nothing is estimated here: the very functions that train (adapt, make_optimizer, forward_backward)
run on tensors without memory, and every storage they would make is counted while it would live.
Two steps are needed, since the optimizer's state exists from the second one on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from taskit.memory.conditions import Conditions
from taskit.memory.live import LiveStorages
from taskit.memory.profile import MemoryProfile
from taskit.memory.trace import materialise
from taskit.training.lora import adapt
from taskit.training.step import make_optimizer, train_step, use_checkpointing

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def rehearse(
    build: "Callable[[], PreTrainedModel]",
    ranks: Mapping[str, int],
    heads: Sequence[str],
    task: str,
    conditions: Conditions,
) -> int:
    """Peak bytes of training ``ranks`` (location name -> rank) on ``build()``, a model on meta."""
    with torch.device("meta"):
        model = adapt(build(), ranks, heads, task)
    if conditions.gradient_checkpointing:
        use_checkpointing(model)
    with FakeTensorMode():
        materialise(model)
        model.train()
        live = LiveStorages()
        live.follow((*model.parameters(), *model.buffers()))
        with live:
            # one batch more than a step takes: Accelerate's loader holds the next one already
            *micro_batches, _ahead = [conditions.batch.empty() for _ in range(conditions.gradient_accumulation + 1)]
            trained = [p for p in model.parameters() if p.requires_grad]
            if not trained:  # generation without an adapter: only ever evaluated
                with torch.no_grad():
                    model(**micro_batches[0])
                return live.peak
            optimizer = make_optimizer(conditions.optimizer, trained, lr=1e-3, weight_decay=0.0)
            for _ in range(2):
                train_step(model, optimizer, micro_batches)
    return live.peak


def calibrate(profile: MemoryProfile, ranks: Sequence[int], peak: int) -> MemoryProfile:
    """The profile with the transient bytes that ``peak``, the rehearsed peak of ``ranks``, shows."""
    additive = replace(profile, transient_bytes=0).bytes(ranks)
    return replace(profile, transient_bytes=max(peak - additive, 0))
