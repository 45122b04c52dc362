"""Claim: at a 60 % budget TaskIT is 0.2 points from LoRA everywhere, 1 above uniform LoRA, and above the last blocks.

    python -m benchmarks.accuracy --data FOLDER --work FOLDER [--families text image vit-tiny] [--tasks NAME…]
        [--budgets 60 20 40 50 80 100] [--ways NAME…] [--variants NAME…] [--seeds 0 1 2] [--quick] [--out FILE]

The paper's table of accuracy and memory in our size: eight text tasks on MiniLM, eight image tasks on the bundled
backbone and on a pretrained ViT-tiny.  TaskIT, its scheduler with another importance (random, SPT's sensitivity, and
as the oracle what test rows lose without each module of a LoRA everywhere), uniform LoRA (also with EVA's start) and
LoRA on the last blocks (at rank 8, and at the largest rank that fits) keep to the budget; LoRA r = 8 everywhere,
AdaLoRA there, full fine-tuning, the head alone and AdapterSoup (zero-ft) cost what they cost.  TaskIT's plan is the
product's, from the learned tasks that come with the backbone (for ViT-tiny they are learned first) without the task
itself; it may recompute blocks in the backward pass, which taskit-keeping may not and the others do not, but for
uniform LoRA and a random importance in a -checkpointing form of their own.  All train the same rows, and all but
AdapterSoup in the same loop.  A way's learning rate at a budget, where its ranks are others, is the one with the best
mean validation accuracy over all tasks of a family with the first seed, where all rates are tried; its validation
rows, seventy to ninety a task, are too few to tell rates apart, so that training rows of the data that were not
drawn, at most as many as are tested, stand beside them.  Each cell is one file in --work, so that a stopped benchmark
goes on where it was, and so does one that finds an earlier --out; the table holds all cells that are there.

--variants are the paper's smaller tables, all of TaskIT's plan: learned-1 is the cold start from one learned task
(Table 4), learned-N how many learned tasks it takes (Figure 11), gain-FORM the forms of h(r) (Table 2),
importance-KIND Eq. (3) (Table 7), similarity-KIND Eq. (4).  Figure 4 is --budgets 0 10 20 … 100.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from benchmarks import common
from benchmarks.accuracies.suite import GROUPS, group_of, suite
from benchmarks.accuracies.ways import BOUNDED, VARIANTS, WAYS, Row, Task, cell
from benchmarks.methods import drawn, learned
from benchmarks.page.accuracy import section
from benchmarks.transferring.families import Family, draw, families
from taskit.errors import TaskITError
from taskit.files import write_json
from taskit.zoo.zoo import BUNDLED

BUDGETS = (60, 20, 40, 50, 80, 100)
Rates = Mapping[tuple[str, str, int | None], float]  # by family, way and budget


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


def chooses(chosen: argparse.Namespace, key: Key) -> bool:
    """Whether all rates are tried in this cell."""
    return key.seed == chosen.seeds[0] and key.variant is None


def settled(cells: Sequence[Row]) -> Rates:
    """The rate by family, way and budget: the best on the mean over the tasks that tried all, of equals the least."""
    found: dict[tuple[str, str, int | None], dict[float, list[float]]] = {}
    for row in cells:
        if len(row.get("tried", ())) > 1:
            rates = found.setdefault((row["family"], row["way"], row["share"]), {})
            for one in row["tried"]:
                rates.setdefault(one["learning_rate"], []).append(one["validation"])
    return {key: max(sorted(rates), key=lambda rate: fmean(rates[rate])) for key, rates in found.items()}


def scored(row: Row, rates: Rates) -> Row:
    """The cell with the accuracy at the settled rate, or at the only one where that was not tried."""
    tried = row.get("tried")
    if not tried:
        return row
    wanted = rates.get((row["family"], row["way"], row["share"]))
    return row | next((one for one in tried if one["learning_rate"] == wanted), tried[0])


def read_cells(work: Path) -> list[Row]:
    return [json.loads(path.read_text()) for path in sorted((work / "cells").rglob("*.json"))]


def unpack(out: Path, work: Path) -> None:
    """Put the cells of an earlier table into the folder; what is there stays."""
    for row in json.loads(out.read_text())["cells"] if out.exists() else ():
        path = Key(*(row[name] for name in ("family", "task", "seed", "way", "share", "variant"))).path(work)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, row)


def continued(facts: Row, out: Path) -> Row:
    """The facts of a run, after the commands and seeds of the earlier table that it goes on from."""
    earlier = json.loads(out.read_text()) if out.exists() else {"command": [], "seeds": []}
    before = [earlier["command"]] if isinstance(earlier["command"], str) else earlier["command"]
    commands = list(dict.fromkeys([*before, facts["command"]]))
    return facts | {"command": commands, "seeds": sorted({*earlier["seeds"], *facts["seeds"]})}


def one_task(chosen: argparse.Namespace, family: Family, name: str, seed: int, wanted: list[Key]) -> None:
    """The missing cells of one task with one seed."""
    missing = [key for key in wanted if not key.path(chosen.work).exists()]
    if not missing:
        return
    bundled = BUNDLED / family.backbone.rpartition("/")[2]
    zoo = Path(learned(chosen, family) or bundled)
    with tempfile.TemporaryDirectory() as scratch:
        spare = Path(scratch) / "spare" / name
        draw(chosen.data, name, (family.train_rows, family.test_rows), seed, spare, spare=True)
        task = Task(family, name, seed, drawn(chosen, family, name, seed), spare, zoo, Path(scratch))
        for number, key in enumerate(missing, 1):
            about = " ".join(str(part) for part in (key.way, key.share and f"{key.share} %", key.variant) if part)
            count = f"{number} of {len(missing)}"
            print(f"{time.strftime('%H:%M:%S')} {family.name} {name} seed {seed}, {count}: {about}", flush=True)
            rates = {} if chooses(chosen, key) else settled(read_cells(chosen.work))
            kept(chosen.work, key, task, rates.get((family.name, key.way, key.share)))


def kept(work: Path, key: Key, task: Task, rate: float | None) -> None:
    """Measure one cell, at ``rate`` or at all, and keep it."""
    row: Row = {"family": key.family, "group": group_of(key.family, key.task), "task": key.task, "seed": key.seed}
    row |= {"way": key.way, "share": key.share, "variant": key.variant}
    began = time.perf_counter()
    try:
        row |= cell(task, key.way, key.share, key.variant, rate)
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
    facts = continued(common.facts(parser, chosen), chosen.out)
    if chosen.quick:
        chosen.work, chosen.seeds, chosen.budgets = chosen.work / "quick", chosen.seeds[:1], (60,)
        chosen.families = [name for name in chosen.families if name != "vit-tiny"]
    unpack(chosen.out, chosen.work)
    torch.set_num_threads(1)
    known = families(chosen.data)
    for name in chosen.families:
        family = suite(known[name], chosen.quick)
        tasks = [task for task in family.new if task in (chosen.tasks or family.new)]
        for seed in chosen.seeds:
            wanted = {task: list(keys(chosen, family, task, seed)) for task in tasks}
            # a rate is settled by all tasks before it is used
            for first in (True, False):
                for task in tasks:
                    some = [key for key in wanted[task] if chooses(chosen, key) == first]
                    one_task(chosen, family, task, seed, some)
    cells = read_cells(chosen.work)
    cells = [scored(row, settled(cells)) for row in cells]
    found = facts | {"quick": chosen.quick, "cells": cells}
    write_json(chosen.out, found)
    print("\n\n".join([section(found).verdict, *section(found).body]))


if __name__ == "__main__":
    main()
