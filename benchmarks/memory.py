"""Claim: the predicted bytes of training are those of the real steps, for every architecture, without a weight.

    python -m benchmarks.memory [--quick] [--seeds 0] [--parts speed activations peaks] [--architectures NAME…]

activations: 25 random strategies an architecture at realistic sizes; the trace beside the paper's masks (A.2, A.3)
and its linear index, against what separately built models save.  peaks: whole real steps on this CPU under the
conditions of a run, against the allocator's events and the live storages.  speed: pricing without weights.
Parts that need a GPU are skipped with a reason where there is none.
"""

import random
import resource
import time
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.architectures import ARCHITECTURES, LLAMA_70B_BASE, Architecture
from benchmarks.common import Results, options
from benchmarks.gpu import NAMES, gpu_row
from benchmarks.paper_memory import Tokens, linear_index, masked_bytes
from benchmarks.real_steps import CONDITIONS, SMALL, peak_row
from benchmarks.saved import saved_bytes
from taskit.backbone.heads import head_names
from taskit.backbone.target_modules import Location, find_locations
from taskit.memory.conditions import Conditions
from taskit.memory.profile import MemoryProfile
from taskit.memory.rehearsal import rehearse
from taskit.memory.trace import trace
from taskit.scheduler import RANKS

QUICK = ("BERT-base", "Llama-1B")
LARGEST = {"Llama-1B": (ARCHITECTURES["Llama-1B"], 2), "Llama-70B": (LLAMA_70B_BASE, 12)}  # with the bar in seconds


def random_ranks(count: int, choose: random.Random) -> list[int]:
    """Ranks of a random number of random locations, 0 elsewhere."""
    inserted = set(choose.sample(range(count), choose.randint(1, count)))
    return [choose.choice([r for r in RANKS if r]) if k in inserted else 0 for k in range(count)]


def traced_bytes(profile: MemoryProfile, places: Sequence[Location], ranks: Sequence[int], base: Architecture) -> int:
    """Activation bytes by the trace: kept storages and the rank-sized ones, without weights, gradients, momentum."""
    parts = profile.breakdown(ranks)
    lora = sum(rank * (place.in_features + place.out_features) for place, rank in zip(places, ranks, strict=True))
    return parts.activation_bytes + parts.module_bytes - 3 * lora * base.dtype.itemsize


def tokens_of(base: Architecture, config: object) -> Tokens | None:
    """What the paper's masks need to know; None for a Swin, whose windows and lengths change with the depth."""
    text = config.get_text_config()  # type: ignore[attr-defined]
    heads = getattr(text, "num_attention_heads", None) or text.num_heads
    if isinstance(heads, (list, tuple)):
        return None
    rows, length = base.tokens
    if base.task == "image-classification":
        length = (base.settings.get("image_size", 224) // text.patch_size) ** 2 + 1
    return Tokens(rows, length, heads, base.dtype.itemsize)


def compare(predicted: Sequence[float], truth: Sequence[float]) -> dict:
    errors = np.abs(np.array(predicted) / np.array(truth) - 1)
    constant = len(set(predicted)) < 2
    pearson = 0.0 if constant else float(np.corrcoef(predicted, truth)[0, 1])
    return {"mean_error": float(errors.mean()), "worst_error": float(errors.max()), "pearson": pearson}


def activation_row(name: str, strategies: int, seed: int) -> dict:
    base, choose = ARCHITECTURES[name], random.Random(f"{seed} {name}")
    model = base.build()
    places, heads = find_locations(model, base.vision_tower), head_names(model, base.task)
    profile = trace(base.build, places, heads, base.task, Conditions(base.batch(), optimizer="sgd"))
    always = saved_bytes(base, {place.name: 0 for place in places}, heads)
    chosen = [random_ranks(len(places), choose) for _ in range(strategies)]
    truth = [saved_bytes(base, {p.name: r for p, r in zip(places, ranks, strict=True)}, heads) for ranks in chosen]
    tokens = None if base.pictures else tokens_of(base, model.config)
    line = np.polyfit([linear_index(places, ranks) for ranks in chosen], truth, 1)
    predictions = {
        "trace": [always + traced_bytes(profile, places, ranks, base) for ranks in chosen],
        "linear": [float(np.polyval(line, linear_index(places, ranks))) for ranks in chosen],
    }
    if tokens:
        predictions["masks"] = [masked_bytes(places, ranks, tokens) for ranks in chosen]
    row: dict = {
        "locations": len(places),
        "strategies": strategies,
        "dtype": str(base.dtype)[6:],
    }
    row |= {kind: compare(values, truth) for kind, values in predictions.items()}
    row["holds"] = (
        row["trace"]["mean_error"] <= 0.005
        and row["trace"]["worst_error"] <= 0.02
        and row["trace"]["pearson"] >= 0.999
    )
    shown = "  ".join(
        f"{kind} {row[kind]['mean_error']:8.3%} {row[kind]['worst_error']:8.3%} r {row[kind]['pearson']:.5f}"
        for kind in predictions
    )
    print(f"{name:20} {shown}  {'holds' if row['holds'] else 'FAILS'}", flush=True)
    return row


def speed_row(model: str) -> dict:
    """Pricing as a plan does it: the model on meta, its locations, the traced profile and both ends of the budget."""
    price_once(ARCHITECTURES["DistilBERT"])  # the first use of every library
    base, most = LARGEST[model]
    wall, cpu = time.perf_counter(), time.process_time()
    price_once(base)
    row: dict = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    row["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    row["bar_seconds"] = most
    row["holds"] = row["wall_seconds"] <= most and row["peak_rss_bytes"] < 3 * 2**30
    print(f"{model:16} wall {row['wall_seconds']:.2f} s, CPU {row['cpu_seconds']:.2f} s, bar {most} s", end=", ")
    print(f"RSS {row['peak_rss_bytes'] / 2**20:.0f} MiB  {'holds' if row['holds'] else 'FAILS'}", flush=True)
    return row


def price_once(base: Architecture) -> None:
    model = base.build()
    places, heads = find_locations(model), head_names(model, base.task)
    conditions = Conditions(base.batch())
    trace(base.build, places, heads, base.task, conditions)
    rehearse(base.build, {place.name: 0 for place in places}, heads, base.task, conditions)


def main() -> None:
    parser = options("memory", __doc__, quick=f"three strategies each of {', '.join(QUICK)}", seeds=(0,))
    parser.add_argument("--strategies", type=int, help="strategies an architecture (default 25, peaks 10, gpu 50)")
    parts = ("speed", "activations", "peaks", "gpu")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, help="only these (activations, peaks)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    few, seeds = 3 if chosen.quick else chosen.strategies, chosen.seeds
    names = chosen.architectures or (QUICK if chosen.quick else ARCHITECTURES)
    results = Results(parser, chosen, strategies=few)
    drawn = [{"architecture": name, "seed": seed} for name in names for seed in seeds]
    real = [key | {"condition": one} for key in drawn if key["architecture"] in SMALL for one in CONDITIONS]
    if "speed" in chosen.parts:
        results.rows("speed", [{"model": name} for name in LARGEST], speed_row)
    if "activations" in chosen.parts:
        print("activation bytes: mean error, worst error, Pearson r")
        results.rows("activations", drawn, lambda architecture, seed: activation_row(architecture, few or 25, seed))
    if "peaks" in chosen.parts:
        print("peak of whole steps: mean, worst and lowest error against the allocator; worst against live storages")
        results.rows("peaks", real, lambda **key: peak_row(**key, strategies=few or 10))
    if "gpu" in chosen.parts and torch.cuda.is_available():
        on_gpu = [{"architecture": name, "seed": seed} for name in NAMES for seed in seeds]
        results.rows("gpu", on_gpu, lambda **key: gpu_row(**key, plans=(few or 50) // len(NAMES) or 1))
    elif "gpu" in chosen.parts:
        results.put(gpu=[{"skipped": "no CUDA device"}])
        print("gpu: skipped, this machine has no CUDA device")
    results.end()


if __name__ == "__main__":
    main()
