"""From a dataset, a backbone, a zoo and a budget to a plan: the one place where all rooms meet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from taskit.backbone import (
    Backbone,
    final_linear,
    find_backbone,
    load_model,
    load_processor,
    require_task,
    source_of,
)
from taskit.budget import parse_budget, show_bytes
from taskit.data import Collator, Dataset, load
from taskit.errors import BudgetError, PlanError
from taskit.importance import transfer
from taskit.plan import Plan, SkippedAdapter
from taskit.pricing import Pricing, Stage, estimate, planned_locations, price, set_stage
from taskit.scheduler import RANKS, Schedule, cheapest_insertion, rank_gain, schedule
from taskit.training.recipe import Recipe
from taskit.transfer import Measurement, measure
from taskit.zoo import Zoo, bundled_zoo, open_zoo

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_ROWS = 128
TOLERANCE = 0.005  # of the budget above no update: a plan that leaves less unspent is not searched further
ATTEMPTS = 4


def search(
    stage: Stage, pricing: Pricing, importance: Sequence[float], budget: int, ranks: Sequence[int] = RANKS
) -> tuple[Schedule, int]:
    """The best schedule whose *rehearsed* peak is within ``budget``, and that peak, in bytes.

    The scheduler optimises the additive profile, which knows the peak only up to a few per cent; so each
    of its answers is rehearsed, and what turns out to be over or unspent moves the target of the next.

    Raises:
        BudgetError: even without any insertion the peak lies above the budget.
    """
    if budget < pricing.no_update_bytes:
        missing = pricing.no_update_bytes - budget
        raise BudgetError(
            f"The budget of {show_bytes(budget)} is {missing} bytes ({show_bytes(missing)}) short of the "
            f"{show_bytes(pricing.no_update_bytes)} that the frozen backbone needs; raise it or use a smaller batch."
        )
    profile, nothing = pricing.profile, (0,) * len(stage.locations)
    best, best_peak = Schedule(nothing, 0.0, pricing.no_update_bytes), pricing.no_update_bytes
    target, floor, over = budget, profile.bytes(nothing), 0
    for attempt in count(1):
        found = schedule(profile, importance, max(target, floor), ranks=ranks)
        peak = stage.rehearse(found.ranks)
        if peak <= budget and found.objective > best.objective:
            best, best_peak = found, peak
        unspent = budget - peak
        settled = 0 <= unspent <= TOLERANCE * (budget - pricing.no_update_bytes) or attempt >= ATTEMPTS
        if not any(found.ranks) or (settled and any(best.ranks)):
            break
        over += unspent < 0  # what is over is cut ever harder, so that the search ends
        target += unspent if unspent >= 0 else unspent * 2**over
    return best, best_peak


def make_plan(
    source: str | Path,
    backbone_id: str,
    budget: str,
    *,
    zoo: str | Path | None = None,
    recipe: Recipe | None = None,
    columns: Mapping[str, str] | None = None,
    dtype: str = "float32",
    quantization: str | None = None,
    similarity: str = "delta",
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Read the data, compare the task with the zoo, price every location and schedule the best plan.

    ``zoo`` is a folder of PEFT adapters; without one, the bundled adapters of the backbone.  ``tell`` is
    called with a sentence at the start of every stage.

        plan = make_plan("photos.zip", "vit-mini-tiny32", "60%")
        plan.save("plan.json")
    """
    wanted = parse_budget(budget)
    if quantization:
        raise PlanError("Plans for a quantised backbone are not priced yet; leave --quantize out.")
    recipe = recipe or Recipe()
    tell("reading the data")
    data = load(source, columns=columns, seed=seed)
    backbone = find_backbone(backbone_id, dtype=dtype, quantization=quantization)
    require_task(backbone, data.info.task)
    tell("tracing a training step without weights")
    collator = make_collator(backbone, data.info.task, recipe.max_length)
    stage = set_stage(backbone, data, recipe, collator)
    pricing = price(stage)
    limit = wanted.resolve(pricing.no_update_bytes, pricing.full_lora_bytes)
    tell("loading the backbone")
    learned = open_zoo(zoo, backbone.id) if zoo else bundled_zoo(backbone.id)
    model = load_model(backbone, task=data.info.task, labels=data.info.labels)
    tell(f"comparing the task with {len(learned.tasks)} learned ones")
    found = compare(model, data, collator, [place.name for place in stage.locations], learned, recipe, seed)
    similarities = found.similarities(similarity)
    importance = transfer(similarities, found.importances, len(stage.locations))
    tell("scheduling ranks inside the budget")
    best, peak = search(stage, pricing, importance, limit)
    if not any(best.ranks) and not stage.heads:
        cheapest = cheapest_insertion(pricing.profile, RANKS)
        raise BudgetError(
            f"The budget of {show_bytes(limit)} admits no LoRA at all; give about {show_bytes(cheapest)} or more."
        )
    return Plan(
        method="taskit",
        seed=seed,
        backbone=backbone,
        data=data.info,
        budget_bytes=limit,
        memory=estimate(pricing, best.ranks, peak),
        similarity_measure=similarity,
        similarity=similarities,
        skipped=tuple(SkippedAdapter(*item) for item in (*learned.skipped, *found.skipped)),
        locations=planned_locations(stage.locations, importance, best.ranks, pricing.profile),
        objective=best.objective,
        trainable_parameters=stage.trainable_parameters(best.ranks),
        training=recipe,
    )


def uniform_plan(
    source: str | Path, backbone_id: str, rank: int, *, recipe: Recipe | None = None, seed: int = 0
) -> Plan:
    """LoRA of one rank at every location, whatever it costs: the baseline, and how the zoo is learned."""
    recipe = recipe or Recipe()
    data, backbone = load(source, seed=seed), find_backbone(backbone_id)
    stage = set_stage(backbone, data, recipe, make_collator(backbone, data.info.task, recipe.max_length))
    pricing = price(stage)
    ranks, ones = (rank,) * len(stage.locations), (1.0,) * len(stage.locations)
    peak = stage.rehearse(ranks)
    return Plan(
        method="uniform",
        seed=seed,
        backbone=backbone,
        data=data.info,
        budget_bytes=peak,
        memory=estimate(pricing, ranks, peak),
        similarity_measure="none",
        similarity=(),
        skipped=(),
        locations=planned_locations(stage.locations, ones, ranks, pricing.profile),
        objective=sum(rank_gain(r, max(RANKS)) for r in ranks),
        trainable_parameters=stage.trainable_parameters(ranks),
        training=recipe,
    )


def make_collator(backbone: Backbone, task: str, max_length: int | None) -> Collator:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source_of(backbone), local_files_only=True)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if max_length is not None and positions is not None and max_length > positions:
        raise PlanError(f"max_length is {max_length}, but {backbone.id} reads {positions} tokens; give at most that.")
    processor = load_processor(backbone, task=task)
    return Collator(task, processor, max_length, encoder_decoder=bool(config.is_encoder_decoder))


def compare(
    model: "PreTrainedModel",
    data: Dataset,
    collator: Collator,
    names: Sequence[str],
    zoo: Zoo,
    recipe: Recipe,
    seed: int,
) -> Measurement:
    """Similarity and importance of every learned task, on a probe drawn from the training rows."""
    rows = min(len(data.train), max(PROBE_ROWS, 4 * len(data.info.labels)))
    probe = data.train.shuffle(seed=seed).select(range(rows))
    step = recipe.batch_size
    batches = [collator([probe[i] for i in range(start, min(start + step, rows))]) for start in range(0, rows, step)]
    head = final_linear(model) if data.info.labels else None
    return measure(model, batches, names, head, zoo.tasks)


def reprice(plan: Plan, data: Dataset, collator: Collator) -> Plan:
    """The plan with its memory recomputed, after a person may have changed its ranks.

    Raises:
        PlanError: the plan names a location that the backbone does not have.
        BudgetError: the ranks need more than the plan's budget.
    """
    stage = set_stage(plan.backbone, data, plan.training, collator)
    known = {place.name for place in stage.locations}
    stranger = next((name for name in plan.ranks if name not in known), None)
    if stranger:
        raise PlanError(f"The plan names the location {stranger}, which {plan.backbone.id} does not have; remove it.")
    ranks = [plan.ranks.get(place.name, 0) for place in stage.locations]
    peak = stage.rehearse(ranks)
    if peak > plan.budget_bytes:
        raise BudgetError(
            f"The plan's ranks need {show_bytes(peak)}, {peak - plan.budget_bytes} bytes more than its budget of "
            f"{show_bytes(plan.budget_bytes)}; lower a rank or raise budget_bytes."
        )
    if peak == plan.memory.peak_bytes:
        return plan
    pricing = price(stage)
    importance = {planned.name: planned.importance for planned in plan.locations}
    lambdas = [importance.get(place.name, 0.0) for place in stage.locations]
    gains = (rank_gain(rank, max(RANKS)) * value for rank, value in zip(ranks, lambdas, strict=True))
    return replace(
        plan,
        memory=estimate(pricing, ranks, peak),
        locations=planned_locations(stage.locations, lambdas, ranks, pricing.profile),
        objective=sum(gains),
        trainable_parameters=stage.trainable_parameters(ranks),
    )
