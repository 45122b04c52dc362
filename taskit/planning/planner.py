"""From a dataset, a backbone, a zoo and a budget to a plan: the one place where all rooms meet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from taskit.backbone.loading import find_backbone
from taskit.backbone.processors import make_collator
from taskit.data import Collator, Dataset, load
from taskit.errors import BudgetError, PlanError
from taskit.methods import form_of
from taskit.planning.budget import Budget, parse_budget, show_bytes
from taskit.planning.context import Outlook, prepare
from taskit.planning.forward_only import composition_instead, forward_profile, largest_batch
from taskit.planning.plan import Plan, PlannedLocation
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import Pricing, Stage, copied, estimate, planned_locations, price, set_stage
from taskit.scheduler import RANKS, Schedule, explain, objective, schedule
from taskit.transfer.importance import UNIFORM

TOLERANCE = 0.005  # of the budget above no update: a plan that leaves less unspent is not searched further
ATTEMPTS = 4


def search(
    rehearse: Callable[[Sequence[int]], int],
    no_update: int,
    solve: Callable[[int], Schedule],
    budget: int,
    floor: int,
) -> tuple[Schedule, int]:
    """The best schedule whose *rehearsed* peak is within ``budget``, and that peak, in bytes.

    ``rehearse`` gives the peak of training with some ranks, and ``no_update`` is that of training none.
    ``solve`` gives the best schedule of the additive profile at a budget of ``floor`` or more.  The profile knows
    the peak only up to a few per cent; so each answer is rehearsed, and what turns out to be over or unspent moves
    the target of the next.

    Raises:
        BudgetError: even at the floor the peak lies above the budget.
    """
    best = start = solve(floor)
    best_peak = rehearse(best.ranks) if any(best.ranks) else no_update
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
        peak = rehearse(found.ranks)
        if peak <= budget and found.objective > best.objective:
            best, best_peak = found, peak
        unspent = budget - peak
        settled = 0 <= unspent <= TOLERANCE * (budget - no_update) or attempt >= ATTEMPTS
        if not any(found.ranks) or (settled and any(best.ranks)):
            break
        over += unspent < 0  # what is over is cut ever harder, so that the search ends
        target += unspent if unspent >= 0 else unspent * 2**over
    if not any(best.ranks):
        cheapest = solve(floor + start.shortfall_bytes)
        peak = rehearse(cheapest.ranks)
        if peak <= budget:
            return cheapest, peak
        best = replace(best, shortfall_bytes=peak - budget)
    return best, best_peak


def make_plan(
    source: str | Path,
    backbone_id: str,
    budget: str,
    *,
    tell: Callable[[str], None] = lambda _: None,
    **choices: Any,
) -> Plan:
    """Read the data, compare the task with the zoo, price every location and schedule the best plan.

    ``choices`` are those of `prepare`.  ``tell`` is called with a sentence at the start of every stage.

        plan = make_plan("photos.zip", "vit-mini-tiny32", "60%")
        plan.save("plan.json")
    """
    wanted = parse_budget(budget)  # refused before anything is read
    return decide(prepare(source, backbone_id, tell=tell, **choices), wanted, tell=tell)


def decide(outlook: Outlook, budget: Budget, *, tell: Callable[[str], None] = lambda _: None) -> Plan:
    """The best plan within ``budget``, its peak rehearsed as a whole.

    Raises:
        BudgetError: the budget is below what the frozen backbone needs, or admits nothing to train.
    """
    pricing = outlook.pricing
    limit = budget.resolve(pricing.no_update_bytes, pricing.full_lora_bytes)
    if outlook.settled.fixed is not None:
        tell("rehearsing a forward pass without weights")
        stage, peak = largest_batch(outlook.stage, outlook.settled.fixed, limit)
        recipe = replace(outlook.recipe, batch_size=stage.conditions.batch.rows)
        return plan_of(replace(outlook, stage=stage, recipe=recipe), solver(outlook)(limit), limit, peak)
    tell("scheduling ranks inside the budget")
    again = outlook.recomputing
    if again and reaches_further(outlook, *(solver(one)(max(limit, one.floor)) for one in (again, outlook))):
        outlook, again = again, None
    try:
        best, peak = _searched(outlook, limit)
    except BudgetError:
        if again is None:
            raise
        return decide(again, budget, tell=tell)  # what is forced in may fit there
    if any(best.ranks):
        outlook.settled.require(outlook.stage.locations, outlook.stage.strategy(best.ranks))
    return plan_of(outlook, best, limit, peak)


def solver(outlook: Outlook) -> Callable[[int], Schedule]:
    """What gives the best schedule of the outlook's profile at a budget in bytes."""
    return partial(outlook.settled.solve, outlook.pricing.profile, outlook.importance, **outlook.wishes)


def reaches_further(outlook: Outlook, recomputing: Schedule, keeping: Schedule) -> bool:
    """Whether recomputed blocks pay: they let LoRA into a block nearer the input, for a better objective.

    Higher ranks alone do not: recomputing makes every step longer.
    """

    def first(found: Schedule) -> float:
        chosen = zip(outlook.stage.locations, found.ranks, strict=True)
        return min((place.block for place, rank in chosen if rank), default=math.inf)

    return first(recomputing) < first(keeping) and recomputing.objective > keeping.objective


def _searched(outlook: Outlook, limit: int) -> tuple[Schedule, int]:
    """The best schedule within ``limit`` bytes, and its rehearsed peak."""
    stage = outlook.stage
    try:
        best, peak = search(stage.rehearse, outlook.pricing.no_update_bytes, solver(outlook), limit, outlook.floor)
        if not any(best.ranks) and not stage.heads:
            raise BudgetError(
                f"The budget of {show_bytes(limit)} admits no LoRA at all; give "
                f"{show_bytes(best.shortfall_bytes)} more."
            )
    except BudgetError as error:
        found = len(outlook.similarity)
        raise BudgetError(f"{error}"[:-1] + composition_instead(stage, found, limit) + ".") from error
    return best, peak


def plan_of(outlook: Outlook, found: Schedule, budget_bytes: int, peak_bytes: int) -> Plan:
    """A schedule written up as a plan; ``peak_bytes`` is rehearsed, or the additive profile's for a draft."""
    stage, pricing, importance = outlook.stage, outlook.pricing, outlook.importance
    chosen = outlook.settled.solve is schedule  # one by one: only then has a rank a reason
    reasons = explain(pricing.profile, importance, found.ranks, **outlook.wishes) if chosen else None
    return Plan(
        method=outlook.method,
        seed=outlook.seed,
        backbone=outlook.backbone,
        data=outlook.data,
        budget_bytes=budget_bytes,
        memory=estimate(pricing, found.ranks, peak_bytes),
        similarity_measure=outlook.similarity_measure,
        importance_measure=outlook.importance_measure,
        similarity=outlook.similarity,
        skipped=outlook.skipped,
        locations=planned_locations(stage.locations, outlook.sources, found.ranks, pricing.profile),
        objective=found.objective,
        trainable_parameters=stage.trainable_parameters(found.ranks),
        training=outlook.recipe.decided(found.ranks, stage.conditions.gradient_checkpointing),
        gain=outlook.gain,
        constraints=outlook.constraints,
        shortfall_bytes=found.shortfall_bytes,
        explanation=reasons,
        method_options=outlook.settled.options(stage.strategy(found.ranks)),
    )


def uniform_plan(
    source: str | Path, backbone_id: str, rank: int, *, recipe: Recipe | None = None, seed: int = 0
) -> Plan:
    """LoRA of one rank at every location, whatever it costs: the baseline, and how the zoo is learned."""
    recipe = recipe or Recipe()
    data, backbone = load(source, seed=seed), find_backbone(backbone_id)
    stage = set_stage(backbone, data, recipe, make_collator(backbone, data.info.task, recipe.max_length))
    pricing = price(stage)
    ranks, sources = (rank,) * len(stage.locations), ({UNIFORM: 1.0},) * len(stage.locations)
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
        locations=planned_locations(stage.locations, sources, ranks, pricing.profile),
        objective=objective(ranks, (1.0,) * len(ranks), max(RANKS)),
        trainable_parameters=stage.trainable_parameters(ranks),
        training=recipe.decided(ranks, stage.conditions.gradient_checkpointing),
    )


def stage_of(plan: Plan, data: Dataset, collator: Collator) -> Stage:
    """What the plan's strategy, or a person's other one, is rehearsed on, in the form in which it is trained."""
    form, tower = form_of(plan), plan.constraints.vision_tower
    return set_stage(plan.backbone, data, plan.training, collator, vision_tower=tower, form_of=lambda _: form)


def reprice(plan: Plan, data: Dataset, collator: Collator) -> Plan:
    """The plan with its memory recomputed, after a person may have changed its ranks.

    Raises:
        PlanError: the plan names a location that the backbone does not have.
        BudgetError: the ranks need more than the plan's budget.
    """
    stage = stage_of(plan, data, collator)
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
    form = stage.form_of(plan.ranks)
    if form.trains:
        pricing = price(stage)
        pricing = replace(pricing, profile=copied(pricing.profile, form))
    else:
        pricing = _forward_pricing(plan, stage)
    planned = {place.name: place.sources for place in plan.locations}
    sources = [planned.get(place.name, {}) for place in stage.locations]
    locations = planned_locations(stage.locations, sources, ranks, pricing.profile)
    if peak == plan.memory.peak_bytes and _prices(locations) == _prices(plan.locations):
        return plan  # nobody has changed it
    lambdas = [sum(addends.values()) for addends in sources]
    return replace(
        plan,
        memory=estimate(pricing, ranks, peak),
        locations=locations,
        objective=objective(ranks, lambdas, max(*plan.constraints.ranks, *ranks), plan.gain),
        trainable_parameters=stage.trainable_parameters(ranks),
        explanation=None,  # the ranks are a person's now
    )


def _forward_pricing(plan: Plan, stage: Stage) -> Pricing:
    """Of a method that trains nothing; the ends of the scale, which are those of training, stay the plan's."""
    memory = plan.memory
    return Pricing(forward_profile(stage, plan.ranks), memory.no_update_bytes, memory.full_lora_bytes)


def _prices(locations: Sequence[PlannedLocation]) -> list[tuple[str, int, int]]:
    return [(place.name, place.rank, place.bytes) for place in locations]
