"""Claim: similarity and importance are predicted before training as training would have shown them.

    python -m benchmarks.transfer --data FOLDER --work FOLDER [--families text image vit-tiny] [--seeds 0 1 2]

learn: trains LoRA r = 8 everywhere on every task.  ablate: takes each module from it on test rows.  insert: trains
each module alone.  own: what each learned adapter says on its own data.  gather: measures all on which a prediction
could rest.  alone: trains the plans that single learned tasks lead to.  All is kept in the folder --work, so that a
stopped run goes on where it was; report prints the tables of what is there and writes them.  What a prediction is
worth in accuracy, benchmarks/accuracy.py shows.

lend, only where it is asked for, puts what single modules gained in learned tasks into the notes of the bundled zoo,
where planning finds it; --tasks can name learned tasks, too, for ablate and insert.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import common
from benchmarks.transferring.alone import alone
from benchmarks.transferring.bench import Bench
from benchmarks.transferring.evidence import gather, own_sums
from benchmarks.transferring.families import Family, draw, families
from benchmarks.transferring.tables import (
    ALONE,
    alone_rows,
    gains_of,
    importance_rows,
    report,
    similarity_rows,
    summary,
)
from benchmarks.transferring.transfer_sources import lend
from benchmarks.transferring.truth import ablate, insert, learn

FILES = {  # what each part leaves
    "learn": "adapter_model.safetensors",
    "ablate": "truth.npz",
    "insert": "insertion.npz",
    "own": "own.npy",
    "gather": "evidence.npz",
    "alone": ALONE,
}
SIMILARITY = ("learn", "gather")  # the parts that similarity needs
PARTS = (*FILES, "report")
LEND = "lend"  # only where it is asked for: it writes into the zoo
QUICK = {"train_rows": 160, "test_rows": 80, "epochs": 1}


def quick_family(family: Family) -> Family:
    return replace(family, learned=family.learned[:2], new=family.new[:1], **QUICK)


def place(work: Path, family: Family, task: str, seed: int) -> Path:
    folder = work / family.name / f"seed{seed}" / task
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def one_task(options: argparse.Namespace, family: Family, task: str, seed: int, part: str) -> None:
    """One part of one task with one seed, into its place."""
    folder = place(options.work, family, task, seed)
    start = time.perf_counter()

    def on_progress(line: str) -> None:
        seconds = time.perf_counter() - start
        print(
            f"{time.strftime('%H:%M:%S')} {family.name} {task} seed {seed} {part}: {line} ({seconds:.0f} s)",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as scratch:
        source = draw(options.data, task, (family.train_rows, family.test_rows), seed, Path(scratch) / task)
        bench = Bench.open(family, source, seed)
        on_progress("opened")
        if part == "learn":
            learn(bench, folder, on_progress)
        elif part == "ablate":
            ablate(bench, folder, bench.test, on_progress)
        elif part == "insert":
            insert(bench, folder, 2, bench.test, on_progress)
        elif part == "gather":
            learned = [name for name in family.learned if name != task]
            adapters = {name: place(options.work, family, name, 0) for name in learned}
            owns = [place(options.work, family, task, one) for one in options.seeds]
            owns = [own for own in owns if (own / FILES["learn"]).exists()]  # learned tasks are trained once
            gather(bench, adapters, owns, folder / FILES[part])
        elif part == "own":
            own_sums(bench, folder, folder / FILES[part])
        else:
            alone(bench, source, np.load(folder / FILES["gather"]), folder / FILES[part], on_progress)


def run(options: argparse.Namespace, family: Family, part: str) -> None:
    for seed in options.seeds[:1] if part == "own" else options.seeds:
        everything = seed == 0 and (part in SIMILARITY or options.tasks)
        tasks = family.learned if part == "own" else family.tasks if everything else family.new
        for task in tasks:
            wanted = not options.tasks or task in options.tasks or part in ("learn", "own")
            done = (place(options.work, family, task, seed) / FILES[part]).exists()
            if wanted and not done:
                one_task(options, family, task, seed, part)


def write_report(options: argparse.Namespace, chosen: list[Family], facts: dict[str, Any]) -> None:
    """The tables of all that --work holds, with the command that measures it, whatever part was asked for now.

    Of an earlier report what this one has nothing about stays as it is.
    """
    facts["command"] = facts["command"].partition(" --parts")[0]
    earlier = json.loads(options.out.read_text()) if options.out.exists() else {}
    facts |= {name: earlier[name] for name in families(options.data) if name in earlier}
    for family in chosen:
        rows = [] if family.similarity_only else importance_rows(options.work, family, options.seeds)
        found = {
            "similarity": similarity_rows(options.work, family, options.seeds),
            "similarity_unseen": similarity_rows(options.work, family, options.seeds, family.unseen),
            "importance": rows,
            "importance_means": summary(rows),
            "alone": alone_rows(options.work, family, options.seeds),
            "gains": {task: gains.tolist() for task, gains in gains_of(options.work, family).items()},
        }
        facts[family.name] = earlier.get(family.name, {}) | {part: rows for part, rows in found.items() if rows}
        report(family.name, facts[family.name])
    options.out.write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    quick, data = "two learned tasks and one new one, few rows, one epoch", "TASK.zip and TASK_train.csv"
    parser = common.options("transfer", __doc__, quick=quick, data=data, required=True, seeds=(0, 1, 2))
    parser.add_argument("--work", type=Path, required=True, help="where trained adapters and truths are kept")
    parser.add_argument("--families", nargs="+", default=["text", "image", "vit-tiny"])
    parser.add_argument("--tasks", nargs="+", help="of all; the new ones without it")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=(*PARTS, LEND))
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = families(options.data)
    chosen = [quick_family(known[name]) if options.quick else known[name] for name in options.families]
    for family in chosen:
        for part in options.parts:
            if part in SIMILARITY or (part in FILES and not family.similarity_only):
                run(options, family, part)
        if LEND in options.parts:
            lend(options.work, family)
    if "report" in options.parts:
        write_report(options, chosen, common.facts(parser, options))


if __name__ == "__main__":
    main()
