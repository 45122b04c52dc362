"""Claim: over a bfloat16 backbone, bfloat16 adapters train as well as float32 ones, in less memory.

    python -m benchmarks.adapter_dtype --data FOLDER [--seeds 0 1 2] [--quick] [--task trec_question] [--out FILE]

LoRA r = 8 everywhere on a real text task, three times: backbone and adapters in float32, both in bfloat16, and
float32 adapters over a bfloat16 backbone.  Prints test accuracy and the peak of the live storages of a step above
that of the standing weights, and writes both.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Results, Row, options
from benchmarks.transferring.bench import Bench, accuracy
from benchmarks.transferring.families import draw, families
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.step.step import make_optimizer, train_step

WAYS = {"float32": ("float32", None), "bfloat16": ("bfloat16", None), "mixed": ("bfloat16", torch.float32)}


def set_adapters(model: Any, dtype: torch.dtype | None) -> None:
    for name, parameter in model.named_parameters():
        if dtype is not None and ".lora_" in name:
            parameter.data = parameter.data.to(dtype)


def step_bytes(bench: Bench, model: Any) -> int:
    """Most bytes that a step needs beside the standing weights."""
    optimizer = make_optimizer("adamw", [p for p in model.parameters() if p.requires_grad], 1e-9, 0.0)
    batch = bench.probe()[0]
    live = LiveStorages()
    with live:
        live.follow(standing_tensors(model))
        before = live.now
        train_step(model, optimizer, [{name: tensor.clone() for name, tensor in batch.items()}])
    return live.peak - before


def one(data: Path, task: str, rows: int, seed: int, way: str) -> Row:
    base, adapters = WAYS[way]
    family = families(data)["text"]
    with tempfile.TemporaryDirectory() as folder:
        source = draw(data, task, (rows, rows), seed, Path(folder))
        bench = Bench.open(family, source, seed, dtype=base)
    model = bench.train(bench.full(), started=lambda model: set_adapters(model, adapters))
    row = {"head": accuracy(bench.model, bench.test), "test": accuracy(model, bench.test)}
    return row | {"step_bytes": step_bytes(bench, model.train())}


def summary(rows: list[Row]) -> list[Row]:
    """Mean of each way over the seeds."""
    found = []
    for way in WAYS:
        same = [row for row in rows if row["way"] == way]
        means = {key: statistics.fmean(row[key] for row in same) for key in ("test", "step_bytes")}
        found.append({"way": way} | means)
    return found


def main() -> None:
    parser = options(
        "adapter_dtype",
        __doc__,
        quick="one seed, 64 rows",
        data="TASK_train.csv and TASK_test.csv",
        required=True,
        seeds=(0, 1, 2),
    )
    parser.add_argument("--task", default="trec_question")
    parser.add_argument("--rows", type=int, default=240, help="training and test rows: bfloat16 is slow on a CPU")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seeds, chosen.rows = chosen.seeds[:1], 64
    torch.set_num_threads(1)
    results = Results(parser, chosen, task=chosen.task, train_rows=chosen.rows)
    keys = [{"seed": seed, "way": way} for seed in chosen.seeds for way in WAYS]
    rows = results.rows("rows", keys, lambda seed, way: one(chosen.data, chosen.task, chosen.rows, seed, way))
    results.put(means=summary(rows))
    for row in summary(rows):
        print(f"{row['way']:9} accuracy {row['test']:.4f}, step {row['step_bytes']:,.0f} bytes")


if __name__ == "__main__":
    main()
