"""From a dataset, a backbone, a zoo and a budget to a plan: the one place where all packages below meet."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from taskit.backbone.processors import make_collator
from taskit.backbone.sources import find_backbone
from taskit.data import Collator, Dataset, load
from taskit.errors import BudgetError, PlanError
from taskit.methods import parametrization_of
from taskit.planning.budget import Budget, parse_budget
from taskit.planning.context import PlanningContext, prepare
from taskit.planning.forward_only import composition_instead, forward_profile, largest_batch
from taskit.planning.plan import Plan, PlannedLocation
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import Pricing, StepSpec, build_step_spec, copied, estimate, planned_locations, price
from taskit.scheduler import RANKS, Schedule, objective
from taskit.terminal import show_bytes
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

    ``rehearse`` gives the peak of training with some ranks, and ``no_update`` is that of training none.  ``solve``
    gives the best schedule of the additive profile at a budget of ``floor`` or more.  The profile knows the peak only
    up to a few per cent; so each answer is rehearsed, and its error moves the budget that the next is solved for:

        budget 100, solved for 100: peak 104, over by 4   -> solve for 100 - 2 * 4 = 92
                    solved for  92: peak  95, 5 unspent   -> solve for  92 + 5     = 97
                    solved for  97: peak 99.8, .2 unspent -> within TOLERANCE, the answer

    Each further overshoot is subtracted twice as hard as the one before (2, 4, 8 ... times), so that the search ends.

    Raises:
        BudgetError: even at the floor the peak lies above the budget.
    """
    least = best = solve(floor)
    best_peak = rehearse(least.ranks) if any(least.ranks) else no_update
    if budget < best_peak:
        raise _too_small(budget, best_peak, forced=any(least.ranks))
    solve_for, overshoots = budget, 0
    for attempt in count(1):
        found = solve(max(solve_for, floor))
        peak = rehearse(found.ranks)
        unspent = budget - peak
        if unspent >= 0 and found.objective > best.objective:
            best, best_peak = found, peak
        enough = 0 <= unspent <= TOLERANCE * (budget - no_update) or attempt >= ATTEMPTS
        if not any(found.ranks) or (enough and any(best.ranks)):
            break
        overshoots += unspent < 0
        solve_for += unspent if unspent >= 0 else unspent * 2**overshoots
    if any(best.ranks):
        return best, best_peak
    cheapest = solve(floor + least.shortfall_bytes)
    peak = rehearse(cheapest.ranks)
    if peak <= budget:
        return cheapest, peak
    return replace(best, shortfall_bytes=peak - budget), best_peak


def _too_small(budget: int, needed: int, forced: bool) -> BudgetError:
    missing = needed - budget
    needy = "frozen backbone and the locations forced in need" if forced else "frozen backbone needs"
    return BudgetError(
        f"The budget of {show_bytes(budget)} is {missing} bytes ({show_bytes(missing)}) short of the "
        f"{show_bytes(needed)} that the {needy}; raise it or use a smaller batch."
    )


def make_plan(
    source: str | Path,
    backbone_id: str,
    budget: str,
    *,
    on_progress: Callable[[str], None] = lambda _: None,
    **choices: Any,
) -> Plan:
    """Read the data, compare the task with the zoo, price every location and schedule the best plan.

    ``choices`` are those of `prepare`.  ``on_progress`` is called with a sentence at the start of every part.

        plan = make_plan("photos.zip", "vit-mini-tiny32", "60%")
        plan.save("plan.json")
    """
    wanted = parse_budget(budget)  # raises before anything is read
    return decide(prepare(source, backbone_id, on_progress=on_progress, **choices), wanted, on_progress=on_progress)


def decide(context: PlanningContext, budget: Budget, *, on_progress: Callable[[str], None] = lambda _: None) -> Plan:
    """The best plan within ``budget``, its peak rehearsed as a whole.

    Raises:
        BudgetError: the budget is below what the frozen backbone needs, or admits nothing to train.
    """
    pricing = context.pricing
    limit = budget.resolve(pricing.no_update_bytes, pricing.full_lora_bytes)
    if context.resolved.fixed is not None:
        on_progress("rehearsing a forward pass without weights")
        step_spec, peak = largest_batch(context.step_spec, context.resolved.fixed, limit)
        recipe = replace(context.recipe, batch_size=step_spec.conditions.batch.rows)
        return plan_of(replace(context, step_spec=step_spec, recipe=recipe), context.solve(limit), limit, peak)
    on_progress("scheduling ranks inside the budget")
    again = context.recomputing
    if again and reaches_further(context, *(one.solve(max(limit, one.floor)) for one in (again, context))):
        context, again = again, None
    try:
        best, peak = _searched(context, limit)
    except BudgetError:
        if again is None:
            raise
        return decide(again, budget, on_progress=on_progress)  # what is forced in may fit there
    if any(best.ranks):
        context.resolved.require(context.step_spec.locations, context.step_spec.strategy(best.ranks))
    return plan_of(context, best, limit, peak)


def reaches_further(context: PlanningContext, recomputing: Schedule, keeping: Schedule) -> bool:
    """Whether recomputed blocks pay: they let LoRA into a block nearer the input, for a better objective.

    Higher ranks alone do not: recomputing makes every step longer.
    """

    def first(found: Schedule) -> float:
        chosen = zip(context.step_spec.locations, found.ranks, strict=True)
        return min((place.block for place, rank in chosen if rank), default=math.inf)

    return first(recomputing) < first(keeping) and recomputing.objective > keeping.objective


def _searched(context: PlanningContext, limit: int) -> tuple[Schedule, int]:
    """The best schedule within ``limit`` bytes, and its rehearsed peak."""
    step_spec = context.step_spec
    try:
        best, peak = search(step_spec.rehearse, context.pricing.no_update_bytes, context.solve, limit, context.floor)
        if not any(best.ranks) and not step_spec.heads:
            raise BudgetError(
                f"The budget of {show_bytes(limit)} admits no LoRA at all; give "
                f"{show_bytes(best.shortfall_bytes)} more."
            )
    except BudgetError as error:
        found = len(context.similarity)
        raise BudgetError(f"{error}"[:-1] + composition_instead(step_spec, found, limit) + ".") from error
    return best, peak


def plan_of(context: PlanningContext, found: Schedule, budget_bytes: int, peak_bytes: int) -> Plan:
    """A schedule written up as a plan; ``peak_bytes`` is rehearsed, or the additive profile's for a draft."""
    step_spec, pricing = context.step_spec, context.pricing
    return Plan(
        method=context.method,
        seed=context.seed,
        backbone=context.backbone,
        data=context.data,
        budget_bytes=budget_bytes,
        memory=estimate(pricing, found.ranks, peak_bytes),
        similarity_measure=context.similarity_measure,
        importance_measure=context.importance_measure,
        similarity=context.similarity,
        skipped=context.skipped,
        locations=planned_locations(step_spec.locations, context.sources, found.ranks, pricing.profile),
        objective=found.objective,
        trainable_parameters=step_spec.trainable_parameters(found.ranks),
        training=context.recipe.decided(found.ranks, step_spec.conditions.gradient_checkpointing),
        gain=context.gain,
        constraints=context.constraints,
        shortfall_bytes=found.shortfall_bytes,
        explanation=context.explain(found.ranks),
        method_options=context.resolved.options(step_spec.strategy(found.ranks)),
    )


def uniform_plan(
    source: str | Path, backbone_id: str, rank: int, *, recipe: Recipe | None = None, seed: int = 0
) -> Plan:
    """LoRA of one rank at every location, whatever it costs: the baseline, and how the zoo is learned."""
    recipe = recipe or Recipe()
    data, backbone = load(source, seed=seed), find_backbone(backbone_id)
    step_spec = build_step_spec(backbone, data, recipe, make_collator(backbone, data.info.task, recipe.max_length))
    pricing = price(step_spec)
    ranks, sources = (rank,) * len(step_spec.locations), ({UNIFORM: 1.0},) * len(step_spec.locations)
    peak = step_spec.rehearse(ranks)
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
        locations=planned_locations(step_spec.locations, sources, ranks, pricing.profile),
        objective=objective(ranks, (1.0,) * len(ranks), max(RANKS)),
        trainable_parameters=step_spec.trainable_parameters(ranks),
        training=recipe.decided(ranks, step_spec.conditions.gradient_checkpointing),
    )


def step_spec_of(plan: Plan, data: Dataset, collator: Collator) -> StepSpec:
    """What the plan's strategy, or one that a person edited, is rehearsed on, parametrized as it is trained."""
    parametrization = parametrization_of(plan.method, plan.method_options)
    tower = plan.constraints.vision_tower
    return build_step_spec(
        plan.backbone, data, plan.training, collator, vision_tower=tower, parametrization_of=lambda _: parametrization
    )


def reprice(plan: Plan, data: Dataset, collator: Collator) -> Plan:
    """The plan with its memory recomputed, after a person may have changed its ranks.

    Raises:
        PlanError: the plan names a location that the backbone does not have.
        BudgetError: the ranks need more than the plan's budget.
    """
    step_spec = step_spec_of(plan, data, collator)
    known = {place.name for place in step_spec.locations}
    stranger = next((name for name in plan.ranks if name not in known), None)
    if stranger:
        raise PlanError(f"The plan names the location {stranger}, which {plan.backbone.id} does not have; remove it.")
    ranks = [plan.ranks.get(place.name, 0) for place in step_spec.locations]
    peak = step_spec.rehearse(ranks)
    if peak > plan.budget_bytes:
        raise BudgetError(
            f"The plan's ranks need {show_bytes(peak)}, {peak - plan.budget_bytes} bytes more than its budget of "
            f"{show_bytes(plan.budget_bytes)}; lower a rank or raise budget_bytes."
        )
    parametrization = step_spec.parametrization_of(plan.ranks)
    if parametrization.trains:
        pricing = price(step_spec)
        pricing = replace(pricing, profile=copied(pricing.profile, parametrization))
    else:
        pricing = _forward_pricing(plan, step_spec)
    planned = {place.name: place.sources for place in plan.locations}
    sources = [planned.get(place.name, {}) for place in step_spec.locations]
    locations = planned_locations(step_spec.locations, sources, ranks, pricing.profile)
    if peak == plan.memory.peak_bytes and _prices(locations) == _prices(plan.locations):
        return plan  # unchanged
    lambdas = [sum(addends.values()) for addends in sources]
    return replace(
        plan,
        memory=estimate(pricing, ranks, peak),
        locations=locations,
        objective=objective(ranks, lambdas, max(*plan.constraints.ranks, *ranks), plan.gain),
        trainable_parameters=step_spec.trainable_parameters(ranks),
        explanation=None,  # the ranks are a person's now
    )


def _forward_pricing(plan: Plan, step_spec: StepSpec) -> Pricing:
    """Of a method that trains nothing; the ends of the scale, which are those of training, stay the plan's."""
    memory = plan.memory
    return Pricing(forward_profile(step_spec, plan.ranks), memory.no_update_bytes, memory.full_lora_bytes)


def _prices(locations: Sequence[PlannedLocation]) -> list[tuple[str, int, int]]:
    return [(place.name, place.rank, place.bytes) for place in locations]
