"""Claim: similarity and importance are predicted before training as training would have shown them.

    python -m benchmarks.transfer --data FOLDER --work FOLDER [--families text image vit-tiny] [--seeds 0 1 2]

learn: trains LoRA r = 8 everywhere on every task and ablates each module on test rows.  insert: trains each module
alone.  All is kept in the folder --work, so that a stopped run goes on where it was.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.transferring.bench import Bench
from benchmarks.transferring.evidence import gather
from benchmarks.transferring.families import Family, draw, families
from benchmarks.transferring.truth import insert, learn

FILES = {"learn": "truth.npz", "gather": "evidence.npz", "insert": "insertion.npz"}


def opened(family: Family, data: Path, task: str, seed: int, scratch: Path) -> Bench:
    rows = family.train_rows, family.test_rows
    return Bench.open(family, draw(data, task, rows, seed, scratch / f"{task}-{seed}"), seed)


def place(work: Path, family: Family, task: str, seed: int) -> Path:
    folder = work / family.name / f"seed{seed}" / task
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def truths(family: Family, options: argparse.Namespace, part: str) -> None:
    for seed in options.seeds:
        for task in family.tasks if part == "learn" and seed == 0 else family.new:
            folder = place(options.work, family, task, seed)
            if (folder / FILES[part]).exists():
                continue
            start = time.perf_counter()

            def tell(line: str, of: str = f"{family.name} {task} seed {seed} {part}", start: float = start) -> None:
                print(f"{time.strftime('%H:%M:%S')} {of}: {line} ({time.perf_counter() - start:.0f} s)", flush=True)

            with tempfile.TemporaryDirectory() as scratch:
                bench = opened(family, options.data, task, seed, Path(scratch))
            tell("opened")
            if part == "gather":
                learned = [name for name in family.learned if name != task]
                adapters = {name: place(options.work, family, name, 0) for name in learned}
                gather(bench, adapters, folder, folder / "evidence.npz")
            elif part == "learn":
                learn(bench, folder, bench.test if task in family.new else bench.test[::8], tell)
            else:
                insert(bench, folder, 2, bench.test, tell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where trained adapters and truths are kept")
    parser.add_argument("--families", nargs="+", default=["text", "image", "vit-tiny"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", default=list(FILES), choices=FILES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = families(options.data)
    for name in options.families:
        for part in options.parts:
            truths(dataclasses.replace(known[name]), options, part)


if __name__ == "__main__":
    main()
