"""Plans and trainings as the work folder of the transfer benchmark keeps them, and the learning rate of each way."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.transferring.bench import Bench, accuracy
from taskit.training.files import write_json

RATES = (5e-4, 1e-3, 2e-3)  # for every way of every task anew, chosen on validation rows
ALONE_RATE = 1e-3  # of plans by one learned task
PLANS, ALONE, TRAINED = "plans.json", "alone.json", "trained.json"

Ranks = tuple[int, ...]
Plans = Mapping[tuple[str, int], Ranks]  # by way of choosing and share


class Trainings:
    """The trainings of one task with one seed, kept in ``path``: what is there is not trained again."""

    def __init__(self, path: Path, bench: Bench | None = None) -> None:
        self.path, self.bench = path, bench
        rows = json.loads(path.read_text()) if path.exists() else []
        self.rows = {(tuple(row["ranks"]), row["learning_rate"]): row for row in rows}

    def known(self, ranks: Ranks, rate: float) -> dict[str, Any] | None:
        """Accuracy on ``validation`` and ``test`` rows, and on these that of the ``head`` with which all began."""
        return self.rows.get((ranks, rate))

    def train(self, ranks: Ranks, rate: float) -> dict[str, Any]:
        """As `known`, trained now if need be."""
        if row := self.known(ranks, rate):
            return row
        bench = self.bench
        assert bench is not None, f"{self.path} was opened to be read"
        model = bench.train({name: rank for name, rank in zip(bench.names, ranks, strict=True) if rank}, lr=rate)
        row = {"ranks": ranks, "learning_rate": rate, "head": accuracy(bench.model, bench.test)}
        row |= {"validation": accuracy(model, bench.validation), "test": accuracy(model, bench.test)}
        self.rows[ranks, rate] = row
        write_json(self.path, list(self.rows.values()))
        return row


def keep_plans(path: Path, plans: Plans) -> None:
    write_json(path, [{"way": way, "share": share, "ranks": ranks} for (way, share), ranks in plans.items()])


def read_plans(path: Path) -> Plans:
    return {(row["way"], row["share"]): tuple(row["ranks"]) for row in json.loads(path.read_text())}


def settled_rates(folders: Sequence[Path]) -> dict[str, tuple[float, bool]]:
    """The rate of every way: that of the best validation accuracy on the mean of all seeds, at its least budget.

    ``folders`` are those of one task with each seed.  Of rates that are as good the least.  Beside it, whether all
    rates were tried on all seeds; only those that were are compared.
    """
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for folder in folders:
        trainings, first = Trainings(folder / TRAINED), least(read_plans(folder / PLANS))
        for way, ranks in first.items():
            for rate in rates_for(ranks):
                if row := trainings.known(ranks, rate):
                    found[way, rate].append(row["validation"])
    compared: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (way, rate), validations in found.items():
        if len(validations) == len(folders):
            compared[way].append((mean(validations), -rate))
    wanted = {
        way: len(rates_for(ranks)) for folder in folders for way, ranks in least(read_plans(folder / PLANS)).items()
    }
    return {way: (-max(tried)[1], len(tried) == wanted[way]) for way, tried in compared.items()}


def least(plans: Plans) -> dict[str, Ranks]:
    """The plan of every way at its least budget."""
    found: dict[str, Ranks] = {}
    for (way, _), ranks in sorted(plans.items(), key=lambda item: item[0][1]):
        found.setdefault(way, ranks)
    return found


def rates_for(ranks: Ranks) -> Sequence[float]:
    """All rates; the first where no LoRA learns."""
    return RATES if any(ranks) else RATES[:1]
