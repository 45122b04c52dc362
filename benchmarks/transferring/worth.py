"""What an importance is worth: accuracy of the plans that the same scheduler makes of it at the same budget."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.transferring.agreement import ablation_drops
from benchmarks.transferring.bench import Bench
from benchmarks.transferring.plans import (
    ALONE,
    ALONE_RATE,
    PLANS,
    TRAINED,
    Plans,
    Ranks,
    Trainings,
    keep_plans,
    least,
    rates_for,
    read_plans,
    settled_rates,
)
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
ALONE_SHARE = 60  # per cent, of plans by one learned task

Tell = Callable[[str], None]


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


def try_rates(bench: Bench, plans: Plans, folder: Path, tell: Tell) -> None:
    """Keep ``plans`` in the ``folder`` of a task and seed, and train every way at its least budget with all rates."""
    keep_plans(folder / PLANS, plans)
    trainings = Trainings(folder / TRAINED, bench)
    for way, ranks in least(plans).items():
        found = [trainings.train(ranks, rate)["test"] for rate in rates_for(ranks)]
        tell(f"{way}: " + ", ".join(f"{accuracy:.3f}" for accuracy in found))


def worth(bench: Bench, folder: Path, seeds: Sequence[Path], tell: Tell) -> None:
    """Train the plans in ``folder`` with the rates that did best in the folders of all ``seeds``."""
    rates, trainings = settled_rates(seeds), Trainings(folder / TRAINED, bench)
    for (way, share), ranks in read_plans(folder / PLANS).items():
        tell(f"{share} % {way}: {trainings.train(ranks, rates[way][0])['test']:.3f}")


def alone(bench: Bench, source: Path, folder: Path, evidence: Any, tell: Tell) -> None:
    """Train the plan that each learned task leads to by itself."""
    plans = strategies(bench, source, importances_alone(evidence), [ALONE_SHARE], others=False)
    keep_plans(folder / ALONE, plans)
    trainings = Trainings(folder / TRAINED, bench)
    for (way, _), ranks in plans.items():
        tell(f"{way} alone: {trainings.train(ranks, ALONE_RATE)['test']:.3f}")


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


def importances_alone(evidence: Any) -> dict[str, Sequence[float]]:
    """The importance that each learned task has by itself: the norms of its updates."""
    rows, names = branch_measures(evidence)["update"], evidence["adapters"].tolist()
    return {name: (row / row.mean()).tolist() for name, row in zip(names, rows, strict=False)}
