"""Claim: over a bfloat16 backbone, bfloat16 adapters train as well as float32 ones, in less memory.

    python -m benchmarks.adapter_dtype --data FOLDER [--seeds 0 1 2] [--task trec_question] [--out adapter_dtype.json]

LoRA r = 8 everywhere on a real text task, three times: backbone and adapters in float32, both in bfloat16, and
float32 adapters over a bfloat16 backbone.  Prints test accuracy and the peak of the live storages of a step above
that of the standing weights, and writes both.
"""

import argparse
import json
import platform
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.transferring.bench import Bench, accuracy
from benchmarks.transferring.families import draw, families
from taskit.memory.live import LiveStorages, standing_tensors
from taskit.training.step import make_optimizer, train_step

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with TASK_train.csv and TASK_test.csv")
    parser.add_argument("--task", default="trec_question")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=240, help="training and test rows: bfloat16 is slow on a CPU")
    parser.add_argument("--out", type=Path, default=Path("adapter_dtype.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    family = families(options.data)["text"]
    rows = []
    for seed in options.seeds:
        for way, (base, adapters) in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                source = draw(options.data, options.task, (options.rows, options.rows), seed, Path(folder))
                bench = Bench.open(family, source, seed, dtype=base)
            model = bench.train(bench.full(), started=lambda model, dtype=adapters: set_adapters(model, dtype))
            row = {"seed": seed, "way": way, "head": accuracy(bench.model, bench.test)}
            row |= {"test": accuracy(model, bench.test), "step_bytes": step_bytes(bench, model.train())}
            rows.append(row)
            print(row, flush=True)
    packages = {name: version(name) for name in ("taskit", "torch", "transformers", "peft")}
    facts = {"command": "python -m benchmarks.adapter_dtype", "versions": packages, "machine": platform.machine()}
    facts |= {"task": options.task, "train_rows": options.rows, "rows": rows}
    options.out.write_text(json.dumps(facts, indent=2) + "\n")
    for way in WAYS:
        same = [row for row in rows if row["way"] == way]
        mean, size = (statistics.fmean(row[key] for row in same) for key in ("test", "step_bytes"))
        print(f"{way:9} accuracy {mean:.4f}, step {size:,.0f} bytes")


if __name__ == "__main__":
    main()
