"""What an importance is worth: accuracy of the plans that the same scheduler makes of it at the same budget."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.transferring.agreement import ablation_drops
from benchmarks.transferring.bench import Bench, accuracy
from benchmarks.transferring.predict import branch_measures
from benchmarks.transferring.tables import predictions
from taskit.backbone import find_backbone
from taskit.data import load
from taskit.planning import search
from taskit.pricing import price, set_stage
from taskit.processor import make_collator
from taskit.scheduler import Constraints, schedule, schedule_uniform
from taskit.training.recipe import Recipe

SHARES = (40, 60, 80)  # the default; per cent of the way from no update to LoRA r = 8 everywhere
RATES = (5e-4, 1e-3, 2e-3)  # chosen on the validation rows of a task's first budget, for every way anew
ALONE_SHARE, ALONE_RATES = 60, (1e-3,)  # of plans by one learned task: per cent, and rate

Ranks = tuple[int, ...]


def strategies(
    bench: Bench,
    source: Path,
    importances: Mapping[str, Sequence[float]],
    shares: Sequence[int],
    *,
    others: bool = True,
) -> dict[tuple[str, int], Ranks]:
    """Ranks by (way of choosing, share): of every importance, and of the ``others``, which need none: uniform
    everywhere, uniform on the last blocks, and LoRA r = 8 everywhere."""
    recipe = Recipe(batch_size=bench.family.batch_size, max_length=bench.family.max_length)
    data, backbone = load(source, seed=bench.seed), find_backbone(bench.family.backbone)
    stage = set_stage(backbone, data, recipe, make_collator(backbone, data.info.task, recipe.max_length))
    pricing = price(stage)
    low, high = pricing.no_update_bytes, pricing.full_lora_bytes
    ones = (1.0,) * len(bench.locations)
    blocks = 1 + max(place.block for place in bench.locations)
    ways: dict[str, Callable[[int], Any]] = {
        name: partial(schedule, pricing.profile, list(values)) for name, values in importances.items()
    }
    if others:
        ways["uniform"] = partial(schedule_uniform, pricing.profile, ones)
    found = {}
    for share in shares:
        limit = low + (high - low) * share // 100
        floor = pricing.profile.bytes((0,) * len(ones))
        for name, solve in ways.items():
            found[name, share] = search(stage.rehearse, low, solve, limit, floor)[0].ranks
        for count in range(1, blocks if others else 1):
            some = partial(schedule_uniform, pricing.profile, ones, constraints=Constraints(last_blocks=count))
            ranks = search(stage.rehearse, low, some, limit, floor)[0].ranks
            if max(ranks) >= 8:  # as many blocks as get at least the rank of LoRA everywhere
                found["last blocks", share] = ranks
    return found | ({("LoRA r = 8 everywhere", 100): (8,) * len(ones)} if others else {})


def best_of_rates(rates: Sequence[float], tested: Callable[[float], tuple[float, float]]) -> dict[str, Any]:
    """The rate of the best validation accuracy, the least of those that are as good; ``tested`` trains with one.

    ``tested`` gives the accuracy on the validation rows and on the test rows.
    """
    tried = [(*tested(rate), rate) for rate in rates]
    validation, test, rate = max(tried, key=lambda found: (found[0], -found[2]))
    return {"learning_rate": rate, "validation": validation, "test": test}


def tested(bench: Bench, ranks: Ranks, rate: float) -> tuple[float, float]:
    """Accuracy of LoRA of ``ranks`` on the validation rows and on the test rows."""
    model = bench.train({name: rank for name, rank in zip(bench.names, ranks, strict=True) if rank}, lr=rate)
    return accuracy(model, bench.validation), accuracy(model, bench.test)


def worth(
    bench: Bench,
    plans: Mapping[tuple[str, int], Ranks],
    out: Path,
    settled: Path,
    tell: Callable[[str], None],
    rates: Sequence[float] = RATES,
) -> None:
    """Train every plan; ``out`` keeps a row for each, and a stopped run goes on where it was.

    ``settled`` keeps the learning rate that each way chose when it was first trained, which the other budgets and
    seeds take over.
    """
    chosen = json.loads(settled.read_text()) if settled.exists() else {}
    rows = json.loads(out.read_text()) if out.exists() else []
    done = {(row["way"], row["share"]) for row in rows}
    trained: dict[tuple[Ranks, float | None], dict[str, Any]] = {}
    head = accuracy(bench.model, bench.test)
    for (way, share), ranks in plans.items():
        if (way, share) in done:
            continue
        key = ranks, chosen.get(way)
        if key not in trained:
            trained[key] = best_of_rates(rates if key[1] is None else [key[1]], partial(tested, bench, ranks))
        row = trained[key]
        if any(ranks):
            chosen.setdefault(way, row["learning_rate"])
        rows.append({"way": way, "share": share, "ranks": ranks, "head": head, **row})
        tell(f"{share} % {way}: {row['test']:.3f}")
        out.write_text(json.dumps(rows))
        settled.write_text(json.dumps(chosen))


def importances(evidence: Any, truth: Any, seed: int) -> dict[str, Sequence[float]]:
    """The predicted importance, and those to compare it with: random, SPT's sensitivity, and the ablated truth."""
    drops = ablation_drops(truth)["loss"].mean(1)
    predicted = predictions(evidence)["blend"]
    return {
        "predicted": predicted.tolist(),
        "random": np.random.default_rng(seed).gamma(1.5, 1.0, len(predicted)).tolist(),
        "sensitivity": evidence["spt_soft"].tolist(),
        "oracle": np.maximum(drops, 1e-9).tolist(),
    }


def alone(evidence: Any) -> dict[str, Sequence[float]]:
    """The importance that each learned task has by itself: the norms of its updates."""
    rows, names = branch_measures(evidence)["update"], evidence["adapters"].tolist()
    return {name: (row / row.mean()).tolist() for name, row in zip(names, rows, strict=False)}
