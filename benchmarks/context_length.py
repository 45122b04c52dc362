"""Claim: in 4 bits Llama-3.1-8B is trained on texts of 1,600 tokens in 8 GB, and of 25,000 in 24 GB, as predicted.

    python -m benchmarks.context_length [--quick] [--out FILE]

Nothing is trained: all bytes are rehearsed for a CUDA device, from configurations of public sizes, without weights.
The longest text of the published comparison of context lengths: Llama-3.1-8B, nf4 with double quantisation, bfloat16,
LoRA r = 32 at all linear layers, one text at a time, all blocks recomputed, 8-bit AdamW, 1 GB (10^9 bytes) of the
card set aside for the context of CUDA and what the allocator cannot use.  Beside it, published peaks of other
programs, each with the inputs that its source names, and what is not known of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
import transformers as t

from benchmarks.architectures import BF16, GENERATION, Architecture
from benchmarks.common import Results, Row, options
from taskit.backbone.target_modules import find_locations
from taskit.memory.conditions import Conditions
from taskit.memory.quantized import quantize_empty
from taskit.memory.rehearsal import rehearse
from taskit.memory.simulated_device import simulated_device
from taskit.step.loss import loss_chunk

GB, GIB, ASIDE = 10**9, 2**30, 10**9
PUBLISHED = {  # GB of the card: tokens with Transformers and FlashAttention 2, with Unsloth, with TaskIT before
    8: (None, 2972, 443),
    12: (932, 21848, 2630),
    24: (5789, 78475, 9194),
    80: (28454, 342733, 39822),
}
BARS = {8: 1600, 24: 25000}
LLAMA_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_8B |= {"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}
LLAMA_3B = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24}
LLAMA_3B |= {"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}
LLAMA_3B |= {"tie_word_embeddings": True}
LLAMA_2_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA_2_7B |= {"vocab_size": 32000, "max_position_embeddings": 4096}
NOT_KEYS = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Step:
    """A step to be foretold; ``modules`` are the ends of the names that get LoRA, empty for all."""

    settings: Mapping[str, Any]
    rows: int
    tokens: int
    rank: int
    four_bits: bool = True
    modules: tuple[str, ...] = ()
    optimizer: str = "adamw8bit"
    recomputed: bool = True
    chunked: bool = True

    def inputs(self) -> str:
        """In words."""
        where = f"at {', '.join(self.modules)}" if self.modules else "at all linear layers"
        return (
            f"{self.rows} x {self.tokens} tokens, {'nf4' if self.four_bits else 'bfloat16'}, r = {self.rank} "
            f"{where}, {self.optimizer}, blocks {'recomputed' if self.recomputed else 'kept'}, "
            f"{'loss in chunks' if self.chunked else 'all logits'}"
        )


@dataclass(frozen=True, slots=True)
class Published:
    """A published peak in bytes; ``unknown``: what its source leaves open, or does otherwise."""

    source: str
    step: Step
    peak: float
    unknown: str


def four_bits(dtype: torch.dtype) -> t.BitsAndBytesConfig:
    """As `taskit.backbone.loading` quantises; the head of a language model keeps its precision."""
    return t.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head"],
    )


def build(step: Step) -> t.PreTrainedModel:
    """The model without weights, laid out as on a GPU."""
    model = Architecture(GENERATION, t.LlamaConfig, step.settings, (step.rows, step.tokens), BF16).build()
    return quantize_empty(model, four_bits(BF16), "cuda") if step.four_bits else model


def peak(step: Step) -> int:
    """Bytes of two steps on a GPU as rehearsed; what cuBLAS keeps for itself is not among them."""
    sized = Architecture(GENERATION, t.LlamaConfig, step.settings, (step.rows, step.tokens), BF16)
    empty = sized.build()
    places = [place.name for place in find_locations(empty)]
    ranks = {name: step.rank if not step.modules or name.endswith(step.modules) else 0 for name in places}
    with simulated_device("cuda"):
        chunk = loss_chunk(empty) if step.chunked else None
    conditions = Conditions(
        sized.batch(),
        optimizer=step.optimizer,
        gradient_checkpointing=step.recomputed,
        device="cuda",
        loss_chunk=chunk,
    )
    with mock.patch("torch.cuda.synchronize"):  # bitsandbytes waits for its GPU after every step
        return rehearse(partial(build, step), ranks, (), GENERATION, conditions)


def longest(room: int, peak_of: Callable[[int], int], between: tuple[int, int]) -> tuple[int, int]:
    """The most tokens whose peak is within ``room`` bytes, and that peak.

    Sought on the line through the ends of an interval, which holds the answer and closes in on it.
    """
    low, high = between
    found = {tokens: peak_of(tokens) for tokens in between}
    while found[high] <= room:
        low, high = high, 2 * high
        found[high] = peak_of(high)
    while high - low > 1:
        share = (room - found[low]) / (found[high] - found[low])
        guess = min(max(low + int(share * (high - low)), low + 1), high - 1)
        found[guess] = peak_of(guess)
        low, high = (guess, high) if found[guess] <= room else (low, guess)
        beside = low + 1  # a guess on the line is mostly the answer: see whether one more token fits
        if low < high - 1 and beside not in found:
            found[beside] = peak_of(beside)
            low, high = (beside, high) if found[beside] <= room else (low, beside)
    return low, found[low]


def card(gigabytes: int) -> Row:
    """The longest text that fits a card."""
    step = partial(Step, LLAMA_8B, 1, rank=32)
    tokens, found = longest(gigabytes * GB - ASIDE, lambda count: peak(step(tokens=count)), (256, 4096))
    own, unsloth, before = PUBLISHED[gigabytes]
    row: Row = {"transformers": own, "unsloth": unsloth, "before": before, "tokens": tokens, "peak": found}
    bar = BARS.get(gigabytes)
    return row | ({} if bar is None else {"bar": bar, "holds": tokens >= bar})


TORCHTUNE = "rank and modules of the published run (those of its configuration are taken); it compiles the model"
FORETOLD = {
    "torchtune, Llama-3.2-3B, LoRA": Published(
        "torchtune, README",
        Step(LLAMA_3B, 2, 4096, 64, False, NOT_KEYS, "adamw"),
        8.5 * GIB,
        f"{TORCHTUNE}, and may offload activations; it splits the loss into 8 chunks of all tokens",
    ),
    "torchtune, Llama-3.2-3B, QLoRA": Published(
        "torchtune, README",
        Step(LLAMA_3B, 2, 4096, 64, True, NOT_KEYS, "adamw"),
        4.6 * GIB,
        f"{TORCHTUNE}, and may offload activations; its nf4 is torchao's",
    ),
    "torchtune, Llama-3.1-8B, LoRA": Published(
        "torchtune, README",
        Step(LLAMA_8B, 2, 2048, 8, False, NOT_KEYS, "adamw"),
        16.2 * GIB,
        f"{TORCHTUNE}; whether blocks are recomputed: 30.3 GiB are published beside it, so here they are",
    ),
    "torchtune, Llama-3.1-8B, QLoRA": Published(
        "torchtune, README",
        Step(LLAMA_8B, 2, 2048, 8, True, NOT_KEYS, "adamw"),
        7.4 * GIB,
        f"{TORCHTUNE}; its nf4 is torchao's",
    ),
    "PEFT, Llama-3.2-3B": Published(
        "PEFT, method comparison on MetaMathQA",
        Step(LLAMA_3B, 4, 768, 32, False, ("q_proj", "v_proj"), "adamw", False, False),
        20.76 * GIB,
        "how long the longest batch was (768 tokens at most); published is what the allocator reserves, "
        "not what is allocated; its adapters are float32",
    ),
    "LLaMA-Factory, Llama-2-7B": Published(
        "LLaMA-Factory, README",
        Step(LLAMA_2_7B, 1, 8192, 8, True, (), "adamw", True, False),
        12 * GB,
        "modules, optimizer, and how much is rounded; with Unsloth 8 GB are published",
    ),
}


def foretold(row: str) -> Row:
    """A published peak, and ours of the same step."""
    one = FORETOLD[row]
    found = peak(one.step)
    other = None if one.step.chunked else peak(replace(one.step, chunked=True))
    inputs = {"source": one.source, "inputs": one.step.inputs(), "unknown": one.unknown}
    return inputs | {"published": one.peak, "foretold": found, "error": found / one.peak - 1, "chunked": other}


def main() -> None:
    parser = options("context_length", __doc__, quick="the smallest card, and one published row", seeds=(0,))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(parser, chosen)
    cards = [{"gigabytes": size} for size in PUBLISHED]
    results.rows("cards", cards[:1] if chosen.quick else cards, card)
    rows = [{"row": name} for name in FORETOLD]
    results.rows("published", rows[:1] if chosen.quick else rows, foretold)
    results.end()


if __name__ == "__main__":
    main()
