"""Claim: any blocks may be recomputed: gradients stay those of keeping all, the peak is the rehearsed one to 0.2 %.

    python -m benchmarks.recomputing [--seeds 0] [--quick] [--architectures NAME…] [--out FILE]

steps: each of 21 architectures at a small size, random ranks at random locations, and no, all and random subsets of
its blocks recomputed: real steps on this CPU, whose live storages are counted, beside the rehearsed step; and the
gradients of everything that is trained, by norm, beside those of keeping all.
profiles: the same architectures at the sizes people fine-tune, LoRA r = 8 everywhere: what the additive profile, that
the search for a plan goes by, foretells for five subsets, beside the rehearsal that every plan is checked with.
"""

import gc
import random
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.architectures import ARCHITECTURES, Architecture
from benchmarks.common import Results, Row, options
from benchmarks.real_steps import Loader, filled
from benchmarks.small_sizes import small_size
from taskit.backbone.config import WRITING
from taskit.backbone.heads import head_names
from taskit.backbone.target_modules import find_locations
from taskit.memory.conditions import Conditions
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.memory.rehearsal import rehearse
from taskit.memory.simulated_device import simulated_device
from taskit.memory.trace import trace
from taskit.step.lora import adapt
from taskit.step.loss import loss_chunk, loss_of
from taskit.step.recompute import named_blocks, use_checkpointing
from taskit.step.step import make_optimizer, train_step

GRADIENT, PEAK = 1e-6, 0.002  # the bars
RANDOM, RANK = 3, 8
SUBSETS = ("none", "lower half", "upper half", "every second", "all")


def chunk_of(base: Architecture) -> int | None:
    """Tokens in a chunk of the loss, as a plan would have it."""
    if base.task not in WRITING:
        return None
    try:
        with simulated_device("cpu"):
            return loss_chunk(base.build())
    except RuntimeError:  # it reads numbers of its inputs
        return None


def with_blocks(base: Architecture, blocks: Sequence[str], chunk: int | None) -> Conditions:
    return Conditions(base.batch(), gradient_checkpointing=bool(blocks), recomputed=tuple(blocks), loss_chunk=chunk)


def step_row(architecture: str, seed: int) -> Row:
    """The largest error of gradients and of peaks over the subsets."""
    base, choose = small_size(architecture), random.Random(f"{seed} {architecture}")
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        load = Loader(base, None, Path(folder))
        empty = load.empty()
        places, heads = find_locations(empty, base.vision_tower), head_names(empty, base.task)
        ranks = {place.name: choose.choice((0, 1, 4, 16)) for place in places}
        ranks[choose.choice(places).name] = 4  # at least one
        names, chunk = list(named_blocks(empty)), chunk_of(base)
        model = adapt(load.real(), ranks, heads, base.task).train()
    for path, parameter in model.named_parameters():
        if ".lora_B." in path:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = real_batch(base)
    true = gradient(model, batch, chunk, ())
    subsets = [(), tuple(names), *(some(names, choose) for _ in range(RANDOM))]
    gradients = [((gradient(model, batch, chunk, blocks) - true).norm() / true.norm()).item() for blocks in subsets]
    errors = []
    for blocks in subsets:  # whose steps change the weights
        real = live_peak(model, batch, chunk, blocks)
        errors.append(rehearse(load.empty, ranks, heads, base.task, with_blocks(base, blocks, chunk)) / real - 1)
    worst = max(errors, key=abs)
    row = {"blocks": len(names), "subsets": len(subsets), "gradient": max(gradients), "peak": worst}
    return row | {"holds": max(gradients) <= GRADIENT and abs(worst) <= PEAK}


def some(names: Sequence[str], choose: random.Random) -> tuple[str, ...]:
    """A random subset that is neither empty nor all, where there are two names."""
    chosen = set(choose.sample(names, choose.randint(1, max(len(names) - 1, 1))))
    return tuple(name for name in names if name in chosen)


def real_batch(base: Architecture) -> dict[str, torch.Tensor]:
    """A batch of random tokens or pixels; where images stand in the text, the tokens that say so are left alone."""
    batch = dict(filled(base))
    if "input_ids" in batch and not base.batch().known:
        batch["input_ids"] = torch.randint_like(batch["input_ids"], 3, 1000)
    return batch


def recomputing(model: Any, blocks: Sequence[str]) -> None:
    model.gradient_checkpointing_disable()
    if blocks:
        use_checkpointing(model, blocks)


def gradient(model: Any, batch: dict[str, torch.Tensor], chunk: int | None, blocks: Sequence[str]) -> torch.Tensor:
    """Of everything that is trained, as one vector."""
    recomputing(model, blocks)
    model.zero_grad()
    loss_of(model, batch, chunk).backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def live_peak(model: Any, batch: dict[str, torch.Tensor], chunk: int | None, blocks: Sequence[str]) -> int:
    """Bytes of live storages in two whole steps, another batch waiting, as in a run."""
    recomputing(model, blocks)
    gc.collect()
    live = LiveStorages()
    live.follow(standing_tensors(model))
    with live:
        micro, _ahead = ({name: tensor.clone() for name, tensor in batch.items()} for _ in range(2))
        optimizer = make_optimizer("adamw", [p for p in model.parameters() if p.requires_grad], 1e-4, 0.0)
        for _ in range(2):
            train_step(model, optimizer, [micro], loss=partial(loss_of, model, chunk=chunk))
    return live.peak


def profile_row(architecture: str, seed: int) -> Row:  # noqa: ARG001
    """The additive profile's error of the peak, over the rehearsed peak, for each subset."""
    base = ARCHITECTURES[architecture]
    empty, chunk = base.build(), chunk_of(base)
    places, heads = find_locations(empty, base.vision_tower), head_names(empty, base.task)
    profile = trace(base.build, places, heads, base.task, with_blocks(base, (), chunk))
    count, ranks = len(profile.recomputable), {place.name: RANK for place in places}
    chosen = (range(0), range(count // 2), range(count // 2, count), range(0, count, 2), range(count))
    row: Row = {"blocks": count, "locations": len(places), "chunk": chunk}
    for name, blocks in zip(SUBSETS, chosen, strict=True):
        names = [profile.recomputable[i].name for i in blocks]
        peak = rehearse(base.build, ranks, heads, base.task, with_blocks(base, names, chunk))
        foretold = profile.recomputing(blocks).bytes((RANK,) * len(places))
        row[name] = {"rehearsed": peak, "profile": foretold, "error": foretold / peak - 1}
    return row


def main() -> None:
    parser = options("recomputing", __doc__, quick="two architectures", seeds=(0,))
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    names = ["BERT-base", "Swin-T"] if chosen.quick else chosen.architectures
    keys = [{"architecture": name, "seed": seed} for name in names for seed in chosen.seeds]
    results = Results(parser, chosen)
    results.rows("steps", keys, step_row)
    results.rows("profiles", [key for key in keys if key["seed"] == chosen.seeds[0]], profile_row)
    results.end()


if __name__ == "__main__":
    main()
