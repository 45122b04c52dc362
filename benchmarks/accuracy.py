"""Claim: at a 60 % budget TaskIT is 0.2 points from LoRA everywhere, 1 above uniform LoRA, and above the last blocks.

    python -m benchmarks.accuracy --data FOLDER --work FOLDER [--families text image vit-tiny] [--tasks NAME…]
        [--budgets 40 50 60 80 100] [--ways NAME…] [--variants NAME…] [--seeds 0 1 2] [--quick] [--out FILE]

The paper's table of accuracy and memory in our size: eight text tasks on MiniLM, eight image tasks on the bundled
backbone and on a pretrained ViT-tiny.  TaskIT, uniform LoRA (also with EVA's start) and LoRA on the last blocks (at
rank 8, and at the largest rank that fits) keep to the budget; LoRA r = 8 everywhere, AdaLoRA there, full fine-tuning,
the head alone and AdapterSoup (zero-ft) cost what they cost.  TaskIT's plan is the product's, from the learned tasks
that come with the backbone (for ViT-tiny they are learned first) without the task itself.  All train the same rows,
and all but AdapterSoup in the same loop.  A way's learning rate is chosen on validation rows at the first budget and
seed that it is trained with, for each task anew, and kept for the others.  Each cell is one file in --work, so that a
stopped benchmark goes on where it was; the table holds all cells that are there.

--variants are the paper's smaller tables, all of TaskIT's plan: learned-1 is the cold start from one learned task
(Table 4), learned-N how many learned tasks it takes (Figure 11), gain-FORM the forms of h(r) (Table 2),
importance-KIND Eq. (3) (Table 7), similarity-KIND Eq. (4).  Figure 4 is --budgets 0 10 20 … 100.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import common
from benchmarks.accuracies.suite import GROUPS, group_of, suite
from benchmarks.accuracies.ways import BOUNDED, VARIANTS, WAYS, Row, Task, cell
from benchmarks.methods import drawn, learned
from benchmarks.page.accuracy import section
from benchmarks.transferring.families import Family, families
from taskit.errors import TaskITError
from taskit.training.files import write_json
from taskit.zoo import BUNDLED

BUDGETS = (40, 50, 60, 80, 100)


@dataclass(frozen=True, slots=True)
class Key:
    """One cell of the table; ``share`` is None for what needs no budget, ``variant`` for the product as it is."""

    family: str
    task: str
    seed: int
    way: str
    share: int | None
    variant: str | None

    def path(self, work: Path) -> Path:
        parts = (self.way, self.share, self.variant)
        name = "_".join(str(part) for part in parts if part is not None)
        return work / "cells" / self.family / self.task / f"seed{self.seed}" / f"{name}.json"


def keys(chosen: argparse.Namespace, family: Family, task: str, seed: int) -> Iterator[Key]:
    """The cells of one task and seed that are asked for."""
    for way in chosen.ways:
        for share in chosen.budgets if way in BOUNDED else (None,):
            yield Key(family.name, task, seed, way, share, None)
    for variant in chosen.variants:
        for share in chosen.budgets:
            yield Key(family.name, task, seed, "taskit", share, variant)


def settled(work: Path, key: Key) -> float | None:
    """The learning rate that the way chose for this task before, whatever the budget and the seed."""
    for path in sorted((work / "cells" / key.family / key.task).glob("seed*/*.json")):
        row = json.loads(path.read_text())
        if row["way"] == key.way and row.get("chosen_here"):
            return row["learning_rate"]
    return None


def one_task(chosen: argparse.Namespace, family: Family, name: str, seed: int, wanted: list[Key]) -> None:
    """The missing cells of one task with one seed."""
    missing = [key for key in wanted if not key.path(chosen.work).exists()]
    if not missing:
        return
    bundled = BUNDLED / family.backbone.rpartition("/")[2]
    zoo = Path(learned(chosen, family) or bundled)
    with tempfile.TemporaryDirectory() as scratch:
        task = Task(family, name, seed, drawn(chosen, family, name, seed), zoo, Path(scratch))
        for number, key in enumerate(missing, 1):
            about = " ".join(str(part) for part in (key.way, key.share and f"{key.share} %", key.variant) if part)
            count = f"{number} of {len(missing)}"
            print(f"{time.strftime('%H:%M:%S')} {family.name} {name} seed {seed}, {count}: {about}", flush=True)
            kept(chosen.work, key, task)


def kept(work: Path, key: Key, task: Task) -> None:
    """Measure one cell and keep it."""
    row: Row = {"family": key.family, "group": group_of(key.family, key.task), "task": key.task, "seed": key.seed}
    row |= {"way": key.way, "share": key.share, "variant": key.variant}
    began = time.perf_counter()
    try:
        row |= cell(task, key.way, key.share, key.variant, settled(work, key))
    except TaskITError as error:
        row["refused"] = str(error)
    row["seconds"] = round(time.perf_counter() - began, 1)
    path = key.path(work)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, row)


def options() -> argparse.ArgumentParser:
    quick, data = "one task a family, 96 rows, one epoch, no ViT-tiny", "TASK.zip and TASK_train.csv"
    parser = common.options("accuracy", __doc__, quick=quick, data=data, required=True, seeds=(0, 1, 2))
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="where every cell is kept")
    parser.add_argument("--families", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, metavar="N", help="in per cent")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=())
    return parser


def main() -> None:
    parser = options()
    chosen = parser.parse_args()
    facts = common.facts(parser, chosen)
    if chosen.quick:
        chosen.work, chosen.seeds, chosen.budgets = chosen.work / "quick", chosen.seeds[:1], (60,)
        chosen.families = [name for name in chosen.families if name != "vit-tiny"]
    torch.set_num_threads(1)
    known = families(chosen.data)
    for name in chosen.families:
        family = suite(known[name], chosen.quick)
        for task in (task for task in family.new if task in (chosen.tasks or family.new)):
            for seed in chosen.seeds:
                one_task(chosen, family, task, seed, list(keys(chosen, family, task, seed)))
    cells = [json.loads(path.read_text()) for path in sorted((chosen.work / "cells").rglob("*.json"))]
    found = facts | {"quick": chosen.quick, "cells": cells}
    write_json(chosen.out, found)
    print("\n\n".join([section(found).verdict, *section(found).body]))


if __name__ == "__main__":
    main()
