"""From a dataset, a backbone, a zoo and a budget to a plan: the one place where all packages below meet."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from taskit.backbone.processors import make_collator
from taskit.backbone.sources import find_backbone
from taskit.data import load
from taskit.errors import BudgetError
from taskit.memory.profile import MemoryProfile
from taskit.planning.budget import Budget, parse_budget
from taskit.planning.context import PlanningContext, prepare
from taskit.planning.forward_only import composition_instead, largest_batch
from taskit.planning.levers import levers_left
from taskit.planning.micro_batches import MicroBatch
from taskit.planning.plan import Plan
from taskit.planning.pricing import copied, estimate, planned_locations, price
from taskit.planning.recipe import Recipe
from taskit.planning.savings import decided, longest_of, savings
from taskit.planning.step_spec import build_step_spec
from taskit.scheduler import RANKS, JointSchedule, Schedule, objective
from taskit.terminal import show_bytes
from taskit.transfer.importance import UNIFORM

TOLERANCE = 0.005  # of the budget above no update: a plan that leaves less unspent is not searched further
ATTEMPTS = 4


Found = TypeVar("Found", bound=Schedule)


def search(
    rehearse: Callable[[Found], int],
    solve: Callable[[int], Found],
    budget: int,
    floor: int,
) -> tuple[Found, int]:
    """The best schedule whose *rehearsed* peak is within ``budget``, and that peak, in bytes.

    ``rehearse`` gives the peak of training by a schedule, ``solve`` the best schedule of the additive profiles at a
    budget of ``floor`` or more.  The profiles know the peak only up to a few per cent; so each answer is rehearsed,
    and its error moves the budget that the next is solved for:

        budget 100, solved for 100: peak 104, over by 4   -> solve for 100 - 2 * 4 = 92
                    solved for  92: peak  95, 5 unspent   -> solve for  92 + 5     = 97
                    solved for  97: peak 99.8, .2 unspent -> within TOLERANCE, the answer

    Each further overshoot is subtracted twice as hard as the one before (2, 4, 8 ... times), so that the search ends;
    and where something fits it ends with an answer that was rehearsed before.

    Raises:
        BudgetError: even at the floor the peak lies above the budget.
    """
    least = best = solve(floor)
    best_peak = least_peak = rehearse(least)
    if budget < least_peak:
        raise _too_small(budget, least_peak, forced=any(least.ranks))
    solve_for, overshoots, tried = budget, 0, {least: least_peak}
    for attempt in count(1):
        found = solve(max(solve_for, floor))
        known = found in tried
        peak = tried[found] = tried[found] if known else rehearse(found)
        unspent = budget - peak
        if unspent >= 0 and found.value > best.value:
            best, best_peak = found, peak
        enough = 0 <= unspent <= TOLERANCE * (budget - least_peak) or attempt >= ATTEMPTS or (known and unspent >= 0)
        if not any(found.ranks) or (enough and any(best.ranks)):
            break
        overshoots += unspent < 0
        solve_for += unspent if unspent >= 0 else unspent * 2**overshoots
    if any(best.ranks):
        return best, best_peak
    cheapest = solve(floor + least.shortfall_bytes)
    peak = rehearse(cheapest)
    if peak <= budget:
        return cheapest, peak
    return replace(best, shortfall_bytes=peak - budget), best_peak


def _too_small(budget: int, needed: int, forced: bool) -> BudgetError:
    missing = needed - budget
    needy = "frozen backbone and the locations forced in need" if forced else "frozen backbone needs"
    return BudgetError(
        f"The budget of {show_bytes(budget)} is {missing} bytes ({show_bytes(missing)}) short of the "
        f"{show_bytes(needed)} that the {needy}, with as few rows at once as may be; raise it."
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
        rows = step_spec.conditions.batch.rows
        recipe = replace(context.recipe, batch_size=rows, micro_batch=rows, gradient_accumulation=None)
        batch = step_spec.conditions.batch
        one = MicroBatch(rows, batch, step_spec.conditions.evaluation or batch)
        step_spec = replace(step_spec, micro_batches=(one,))
        steps = (replace(context.steps[0], micro_batch=rows),)
        context = replace(context, step_spec=step_spec, recipe=recipe, steps=steps)
        return plan_of(context, context.solve(limit), limit, peak)
    on_progress("scheduling ranks inside the budget")
    best, peak = _searched(context, budget, limit)
    if any(best.ranks):
        context.resolved.require(context.step_spec.locations, context.step_spec.strategy(best.ranks))
    return plan_of(context, best, limit, peak, traced(context, best))


def traced(context: PlanningContext, found: JointSchedule) -> MemoryProfile:
    """The additive profile of the very step that was decided, which the search had on a line between two others."""
    step_spec = context.step_spec_of(found)
    return copied(step_spec.trace(), step_spec.parametrization_of(step_spec.strategy(found.ranks)))


def _searched(context: PlanningContext, budget: Budget, limit: int) -> tuple[JointSchedule, int]:
    """The best schedule within ``limit`` bytes, and its rehearsed peak; at 0 %, nothing beside the head."""
    step_spec = context.step_spec

    def rehearse(found: JointSchedule) -> int:
        return context.step_spec_of(found).rehearse(found.ranks)

    if budget.fraction == 0 and step_spec.heads and not any(context.least_ranks):
        return nothing_inserted(context), context.pricing.no_update_bytes
    try:
        best, peak = search(rehearse, context.solve, limit, context.floor)
        if not any(best.ranks) and not step_spec.heads:
            raise BudgetError(
                f"The budget of {show_bytes(limit)} admits no LoRA at all; give "
                f"{show_bytes(best.shortfall_bytes)} more."
            )
    except BudgetError as error:
        found = len(context.similarity)
        instead = composition_instead(step_spec, found, limit) + levers_left(context)
        raise BudgetError(f"{error}"[:-1] + instead + ".") from error
    return best, peak


def nothing_inserted(context: PlanningContext) -> JointSchedule:
    """The whole batch at once, and no LoRA."""
    ranks = (0,) * len(context.step_spec.locations)
    return JointSchedule(ranks, 0.0, context.steps[0].profile.bytes(ranks), time=context.steps[0].time)


def plan_of(
    context: PlanningContext,
    found: JointSchedule,
    budget_bytes: int,
    peak_bytes: int,
    profile: MemoryProfile | None = None,
) -> Plan:
    """A schedule written up as a plan; ``peak_bytes`` is rehearsed and ``profile`` traced, or for a draft both those
    of the search."""
    step_spec, profile = context.step_spec_of(found), profile or context.profile_of(found)
    pricing = replace(context.pricing, profile=profile)
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
        locations=planned_locations(step_spec.locations, context.sources, found.ranks, profile),
        objective=found.objective,
        trainable_parameters=step_spec.trainable_parameters(found.ranks),
        training=decided(context.recipe, step_spec, found.ranks),
        gain=context.gain,
        constraints=context.constraints,
        shortfall_bytes=found.shortfall_bytes,
        explanation=context.explain(profile, found.ranks),
        method_options=context.resolved.options(step_spec.strategy(found.ranks)),
        training_rows=step_spec.training_rows,
        longest=longest_of(step_spec),
        savings=savings(context, found),
    )


def uniform_plan(
    source: str | Path, backbone_id: str, rank: int, *, recipe: Recipe | None = None, seed: int = 0
) -> Plan:
    """LoRA of one rank at every location, whatever it costs: the baseline, and how the zoo is learned."""
    recipe = recipe or Recipe()
    data, backbone = load(source, seed=seed), find_backbone(backbone_id)
    collator = make_collator(backbone, data.info.task, recipe.max_length)
    data = data.learnable(collator)
    recipe = replace(recipe, micro_batch=recipe.micro_batch or recipe.batch_size)
    step_spec = build_step_spec(backbone, data, recipe, collator, seed=seed)
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
        training=decided(recipe, step_spec, ranks),
        training_rows=step_spec.training_rows,
        longest=longest_of(step_spec),
    )
