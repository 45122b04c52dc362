"""The price of a plan made before: what it is rehearsed on, and its bytes after a person may have edited it."""

from collections.abc import Sequence
from dataclasses import replace

from taskit.data import Collator, Dataset
from taskit.errors import BudgetError, PlanError
from taskit.methods import parametrization_of
from taskit.planning.forward_only import forward_profile
from taskit.planning.plan import Plan, PlannedLocation
from taskit.planning.pricing import Pricing, copied, estimate, planned_locations
from taskit.planning.savings import longest_of
from taskit.planning.step_spec import StepSpec, build_step_spec
from taskit.scheduler import objective
from taskit.terminal import show_bytes


def step_spec_of(plan: Plan, data: Dataset, collator: Collator) -> StepSpec:
    """What the plan's strategy, or one that a person edited, is rehearsed on, parametrized as it is trained."""
    parametrization = parametrization_of(plan.method, plan.method_options)
    tower = plan.constraints.vision_tower
    step_spec = build_step_spec(
        plan.backbone,
        data,
        plan.training,
        collator,
        vision_tower=tower,
        parametrization_of=lambda _: parametrization,
        seed=plan.seed,
    )
    # a plan of the earlier schema trains by the model's own loss
    return replace(step_spec, conditions=replace(step_spec.conditions, loss_chunk=plan.training.loss_chunk))


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
        profile, memory = step_spec.trace(), plan.memory
        pricing = Pricing(copied(profile, parametrization), memory.no_update_bytes, memory.full_lora_bytes)
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
        training=plan.training.following(ranks),
        explanation=None,  # the ranks are a person's now
        longest=longest_of(step_spec),
        savings=(),
    )


def _forward_pricing(plan: Plan, step_spec: StepSpec) -> Pricing:
    """Of a method that trains nothing; the ends of the scale, which are those of training, stay the plan's."""
    memory = plan.memory
    return Pricing(forward_profile(step_spec, plan.ranks), memory.no_update_bytes, memory.full_lora_bytes)


def _prices(locations: Sequence[PlannedLocation]) -> list[tuple[str, int, int]]:
    return [(place.name, place.rank, place.bytes) for place in locations]
