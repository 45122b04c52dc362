"""From a dataset, a backbone, a zoo and a budget to a plan: the one place where all rooms meet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from taskit.scheduler import (
    ANY,
    RANKS,
    Constraints,
    Schedule,
    explain,
    objective,
    rank_gain,
    schedule,
    schedule_uniform,
)
from taskit.training.recipe import Recipe
from taskit.transfer import Measurement, measure
from taskit.zoo import Zoo, bundled_zoo, open_zoo

if TYPE_CHECKING:
    from transformers import PreTrainedModel

METHODS = {"taskit": schedule, "uniform": schedule_uniform}  # how importance becomes ranks
PROBE_ROWS = 128
TOLERANCE = 0.005  # of the budget above no update: a plan that leaves less unspent is not searched further
ATTEMPTS = 4


def search(
    stage: Stage, pricing: Pricing, solve: Callable[[int], Schedule], budget: int, floor: int
) -> tuple[Schedule, int]:
    """The best schedule whose *rehearsed* peak is within ``budget``, and that peak, in bytes.

    ``solve`` gives the best schedule of the additive profile at a budget of ``floor`` or more.  The profile knows
    the peak only up to a few per cent; so each answer is rehearsed, and what turns out to be over or unspent moves
    the target of the next.

    Raises:
        BudgetError: even at the floor the peak lies above the budget.
    """
    best = start = solve(floor)
    best_peak = stage.rehearse(best.ranks) if any(best.ranks) else pricing.no_update_bytes
    if budget < best_peak:
        missing, forced = best_peak - budget, any(best.ranks)
        needy = "frozen backbone and the locations forced in need" if forced else "frozen backbone needs"
        raise BudgetError(
            f"The budget of {show_bytes(budget)} is {missing} bytes ({show_bytes(missing)}) short of the "
            f"{show_bytes(best_peak)} that the {needy}; raise it or use a smaller batch."
        )
    target, over = budget, 0
    for attempt in count(1):
        found = solve(max(target, floor))
        peak = stage.rehearse(found.ranks)
        if peak <= budget and found.objective > best.objective:
            best, best_peak = found, peak
        unspent = budget - peak
        settled = 0 <= unspent <= TOLERANCE * (budget - pricing.no_update_bytes) or attempt >= ATTEMPTS
        if not any(found.ranks) or (settled and any(best.ranks)):
            break
        over += unspent < 0  # what is over is cut ever harder, so that the search ends
        target += unspent if unspent >= 0 else unspent * 2**over
    if not any(best.ranks):
        cheapest = solve(floor + start.shortfall_bytes)
        peak = stage.rehearse(cheapest.ranks)
        if peak <= budget:
            return cheapest, peak
        best = replace(best, shortfall_bytes=peak - budget)
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
    method: str = "taskit",
    gain: str = "sqrt_ln1p",
    constraints: Constraints = ANY,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Read the data, compare the task with the zoo, price every location and schedule the best plan.

    ``zoo`` is a folder of PEFT adapters; without one, the bundled adapters of the backbone.  ``method`` is one of
    METHODS, ``gain`` a form of h (rank_gain), and ``constraints`` bound all that is trained, heads included.
    ``tell`` is called with a sentence at the start of every stage.

        plan = make_plan("photos.zip", "vit-mini-tiny32", "60%")
        plan.save("plan.json")
    """
    wanted = parse_budget(budget)
    if method not in METHODS:
        raise PlanError(f"There is no method called {method!r}; choose one of {', '.join(METHODS)}.")
    rank_gain(0, 1, gain)  # refuses an unknown form before anything is read
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
    wishes = _wishes(stage, constraints, gain)
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
    profile = pricing.profile
    floor = profile.bytes(constraints.least_ranks(profile.locations, profile.blocks))
    best, peak = search(stage, pricing, partial(METHODS[method], profile, importance, **wishes), limit, floor)
    if not any(best.ranks) and not stage.heads:
        raise BudgetError(
            f"The budget of {show_bytes(limit)} admits no LoRA at all; give {show_bytes(best.shortfall_bytes)} more."
        )
    return Plan(
        method=method,
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
        gain=gain,
        constraints=constraints,
        shortfall_bytes=best.shortfall_bytes,
        explanation=explain(profile, importance, best.ranks, **wishes) if method == "taskit" else None,
    )


def _wishes(stage: Stage, constraints: Constraints, gain: str) -> dict[str, Any]:
    """What the scheduler has to obey; the heads' share is taken off the bound on trained parameters.

    Raises:
        PlanError: no strategy over these locations can obey.
    """
    constraints.candidates([place.name for place in stage.locations], [place.block for place in stage.locations])
    if constraints.max_parameters is not None:
        left = constraints.max_parameters - stage.head_parameters
        if left < 1:
            raise PlanError(
                f"The heads alone train {stage.head_parameters:,} parameters, which leaves nothing of the "
                f"{constraints.max_parameters:,} allowed; allow more."
            )
        constraints = replace(constraints, max_parameters=left)
    per_rank = [place.in_features + place.out_features for place in stage.locations]
    return {"constraints": constraints, "gain": gain, "rank_parameters": per_rank}


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
        objective=objective(ranks, ones, max(RANKS)),
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
    if peak == plan.memory.peak_bytes:
        return plan
    if peak > plan.budget_bytes:
        raise BudgetError(
            f"The plan's ranks need {show_bytes(peak)}, {peak - plan.budget_bytes} bytes more than its budget of "
            f"{show_bytes(plan.budget_bytes)}; lower a rank or raise budget_bytes."
        )
    pricing = price(stage)
    importance = {planned.name: planned.importance for planned in plan.locations}
    lambdas = [importance.get(place.name, 0.0) for place in stage.locations]
    return replace(
        plan,
        memory=estimate(pricing, ranks, peak),
        locations=planned_locations(stage.locations, lambdas, ranks, pricing.profile),
        objective=objective(ranks, lambdas, max(*plan.constraints.ranks, *ranks), plan.gain),
        trainable_parameters=stage.trainable_parameters(ranks),
        explanation=None,  # the ranks are a person's now
    )
