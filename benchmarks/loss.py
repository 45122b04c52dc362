"""Claim: the loss in chunks of learned tokens is the model's own, in as much time and without all logits in memory.

    python -m benchmarks.loss [--seeds 0 1 2] [--quick] [--out FILE]

Value and gradients beside the model's own loss on small random models of every kind, with LoRA everywhere, with LoRA
on the head, too, or with a trained head; time of forward and backward pass of a Llama in the shape of SmolLM2-135M
with four blocks, both losses in turn, the least of several; the peak of real steps beside the rehearsed one; and the
rehearsed peak of Gemma-3-1B.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import transformers as t

from benchmarks.architectures import ARCHITECTURES, GENERATION, Architecture
from benchmarks.common import Results, Row, options
from benchmarks.real_steps import small
from taskit.backbone.target_modules import find_locations
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.memory.rehearsal import fill_with_zeros
from taskit.memory.shapes import RULES, SCRATCH
from taskit.memory.simulated_device import simulated_device
from taskit.step.lora import adapt
from taskit.step.loss import loss_chunk, loss_of
from taskit.step.recompute import use_checkpointing
from taskit.step.step import make_optimizer, train_step
from tests.step.text_models import MODELS, text_batch, text_model

HEADS = ("frozen", "LoRA", "trained")
ERROR, TIME, BYTES, GEMMA = 1e-6, 1.1, 0.002, int(3.6 * 2**30)  # the bars
SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
}
SMOLLM2 |= {"num_key_value_heads": 3, "num_hidden_layers": 4, "tie_word_embeddings": True}


def adapted(model: Any, rank: int, head: str = "frozen") -> Any:
    """LoRA at all locations, and on the head or beside a trained copy of it."""
    ranks = {place.name: rank for place in find_locations(model)} | ({"lm_head": rank} if head == "LoRA" else {})
    return adapt(model, ranks, ("lm_head",) if head == "trained" else (), GENERATION)


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    """Of everything that is trained, as one vector."""
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def agreement(seed: int, model: str, head: str) -> Row:
    """The largest relative error of the value, and of the gradient (by norms), over chunks of several sizes."""
    made, batch = adapted(text_model(model), 4, head), text_batch(model)
    torch.manual_seed(seed)
    for path, parameter in made.named_parameters():
        if ".lora_B." in path:
            torch.nn.init.normal_(parameter, std=0.3)
    own = made(**batch).loss
    true = gradient(made, own)
    values, gradients = [], []
    for chunk in (4, 7, 64):
        loss = loss_of(made, batch, chunk)
        values.append(abs(loss.item() / own.item() - 1))
        gradients.append(((gradient(made, loss) - true).norm() / true.norm()).item())
    worst = {"value": max(values), "gradient": max(gradients)}
    return worst | {"holds": max(worst.values()) <= ERROR}


def step_time(seed: int, rows: int, tokens: int, tries: int) -> Row:
    """Seconds of forward and backward pass with either loss."""
    torch.manual_seed(seed)
    model = adapted(t.LlamaForCausalLM(t.LlamaConfig(**SMOLLM2)), 8).train()
    ids = torch.randint(0, SMOLLM2["vocab_size"], (rows, tokens))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    chunk = loss_chunk(model)
    seconds: dict[str, list[float]] = {"own": [], "chunked": []}
    for _ in range(tries):
        for way, size in (("own", None), ("chunked", chunk)):
            began = time.perf_counter()
            loss_of(model, batch, size).backward()
            seconds[way].append(time.perf_counter() - began)
            model.zero_grad()
    least = {way: min(found) for way, found in seconds.items()}
    ratio = least["chunked"] / least["own"]
    return {"chunk": chunk} | least | {"ratio": ratio, "holds": ratio <= TIME}


class Largest(LiveStorages):
    """LiveStorages that knows its largest storage, in bytes, of those made since ``largest`` was set to 0."""

    largest = 0

    def follow(self, tensors: Any) -> None:
        tensors = list(tensors)
        storages = [tensor.untyped_storage() for tensor in tensors]
        self.largest = max([self.largest, *(one.nbytes() for one in storages if one._cdata not in self._alive)])
        super().follow(tensors)


def step_peak(
    architecture: Architecture, learned: int | None, chunk: Callable[[Any], int | None], *, real: bool, again: bool
) -> tuple[int, int]:
    """Bytes of a step's peak, and of the largest storage that it makes; ``again``: with all blocks recomputed."""
    rows = architecture.tokens[0]
    with torch.device("meta"):
        model = adapted(architecture.build(), 8).train()
    if again:
        use_checkpointing(model)
    if real:
        fill_with_zeros(model)
    live = Largest(1, {} if real else RULES, {} if real else SCRATCH)
    with nullcontext() if real else simulated_device("cpu"):
        size = chunk(model)
        with live:
            live.follow(standing_tensors(model))
            live.largest = 0
            batch = architecture.batch().empty()
            if real and learned is not None:
                batch["attention_mask"][:, 1:] = 1
                batch["labels"].fill_(-100)[:, -learned // rows :] = 1
            optimizer = make_optimizer("adamw", [p for p in model.parameters() if p.requires_grad], 1e-3, 0.0)
            train_step(model, optimizer, [batch], loss=partial(loss_of, model, chunk=size, learned=learned))
    return live.peak, live.largest


def rehearsed(seed: int, architecture: str, dtype: str, again: bool, learned: int) -> Row:  # noqa: ARG001
    """The peak of a step on meta tensors beside that of a real one, with sixteen tokens in a chunk."""
    tried = small(architecture, getattr(torch, dtype))
    gc.collect()
    (found, largest), (true, _) = (
        step_peak(tried, learned, lambda _: 16, real=real, again=again) for real in (False, True)
    )
    error = found / true - 1
    logits = tried.tokens[0] * tried.tokens[1] * tried.settings["vocab_size"] * tried.dtype.itemsize
    row = {"rehearsed": found, "real": true, "error": error, "largest": largest, "logits": logits}
    return row | {"holds": abs(error) <= BYTES and largest < logits}


def gemma(rows: int, tokens: int) -> Row:
    """Rehearsed peak of Gemma-3-1B in bfloat16, all blocks recomputed, with its own loss and in chunks."""
    base = ARCHITECTURES["Gemma3-1B"]
    sized = Architecture(base.task, base.config, base.settings, (rows, tokens), base.dtype)
    own, chunked = (
        step_peak(sized, None, chunk, real=False, again=True)[0] for chunk in (lambda _: None, loss_chunk)
    )
    return {"rows": rows, "tokens": tokens, "own": own, "chunked": chunked, "holds": chunked <= GEMMA}


def keys(seeds: list[int], quick: bool) -> Iterator[Row]:
    for seed in seeds:
        for model in ("llama", "t5") if quick else MODELS:
            for head in HEADS:
                yield {"seed": seed, "model": model, "head": head}


def main() -> None:
    parser = options("loss", __doc__, quick="two models, one strategy, one try", seeds=(0,))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(parser, chosen)
    results.rows("agreement", keys(chosen.seeds, chosen.quick), agreement)
    steps = [
        {"seed": 0, "architecture": name, "dtype": dtype, "again": again, "learned": learned}
        for name in ("Llama-1B", "T5-base")
        for dtype in ("float32", "bfloat16")
        for again in (False, True)
        for learned in (200, 80)
    ]
    results.rows("bytes", steps[:1] if chosen.quick else steps, rehearsed)
    sizes = (2, 50) if chosen.quick else (4, 250)
    tries = 1 if chosen.quick else 8
    results.rows(
        "time",
        [{"seed": 0, "rows": sizes[0], "tokens": sizes[1]}],
        lambda seed, rows, tokens: step_time(seed, rows, tokens, tries),
    )
    results.part("gemma", lambda: gemma(*((1, 64) if chosen.quick else (4, 2048))))
    results.end()


if __name__ == "__main__":
    main()
