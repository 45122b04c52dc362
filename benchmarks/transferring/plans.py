"""Plans that the same scheduler makes of different importances, where all activations are kept."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.transferring.bench import Bench
from taskit.backbone.processors import make_collator
from taskit.backbone.sources import find_backbone
from taskit.data import load
from taskit.planning.planner import search
from taskit.planning.pricing import price
from taskit.planning.step_spec import StepSpec, build_step_spec
from taskit.scheduler import Constraints, schedule, schedule_uniform

Ranks = tuple[int, ...]


def step_spec_of(bench: Bench, source: Path) -> StepSpec:
    """What ranks are rehearsed on where all activations are kept."""
    data, backbone = load(source, seed=bench.seed), find_backbone(bench.family.backbone)
    collator = make_collator(backbone, data.info.task, bench.recipe.max_length)
    return build_step_spec(backbone, data, bench.recipe, collator)


def strategies(
    step_spec: StepSpec, importances: Mapping[str, Sequence[float]], share: int, *, others: bool = True
) -> dict[str, Ranks]:
    """Ranks by way of choosing them, at ``share`` per cent of the way from no update to LoRA r = 8 everywhere: of
    every importance, and of the ``others``, which need none: uniform everywhere, and uniform on the last blocks."""
    pricing = price(step_spec)
    low, high = pricing.no_update_bytes, pricing.full_lora_bytes
    ones = (1.0,) * len(step_spec.locations)
    blocks = 1 + max(place.block for place in step_spec.locations)
    ways: dict[str, Callable[[int], Any]] = {
        name: partial(schedule, pricing.profile, list(values)) for name, values in importances.items()
    }
    if others:
        ways["uniform"] = partial(schedule_uniform, pricing.profile, ones)
    limit = low + (high - low) * share // 100
    floor = pricing.profile.bytes((0,) * len(ones))
    rehearse = lambda found: step_spec.rehearse(found.ranks)  # noqa: E731
    found = {name: search(rehearse, solve, limit, floor)[0].ranks for name, solve in ways.items()}
    for count in range(1, blocks if others else 1):
        some = partial(schedule_uniform, pricing.profile, ones, constraints=Constraints(last_blocks=count))
        ranks = search(rehearse, some, limit, floor)[0].ranks
        if max(ranks) >= 8:  # as many blocks as get at least the rank of LoRA everywhere
            found["last-blocks"] = ranks
    return found
