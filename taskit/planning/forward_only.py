"""The memory of methods that train nothing: that of a forward pass, whose batch can be as small as one row.

What such a method finds does not depend on the batch, so that a budget decides the batch and nothing else.
"""

from collections.abc import Mapping
from dataclasses import replace

from taskit.errors import BudgetError, PlanError
from taskit.memory.live import standing_tensors
from taskit.memory.profile import MemoryProfile
from taskit.planning.step_spec import FULL_RANK, StepSpec
from taskit.scheduler import ANY, Constraints
from taskit.step.parametrization import FrozenParametrization
from taskit.terminal import show_bytes


def forward_profile(step_spec: StepSpec, ranks: Mapping[str, int]) -> MemoryProfile:
    """The profile whose peak for ``ranks`` is that of a forward pass: nothing is kept for a backward one.

    Raises:
        PlanError: as `StepSpec.rehearse`.
    """
    planned = [ranks.get(place.name, 0) for place in step_spec.locations]
    parametrization, width = (
        step_spec.parametrization_of(step_spec.strategy(planned)),
        step_spec.build().dtype.itemsize,
    )
    copies = 1 + getattr(parametrization, "pooled", 0)
    rank_bytes = tuple(copies * width * (place.in_features + place.out_features) for place in step_spec.locations)
    constant = sum(tensor.nbytes for tensor in standing_tensors(step_spec.build()))
    modules = sum(rank * size for rank, size in zip(planned, rank_bytes, strict=True))
    return MemoryProfile(
        locations=tuple(place.name for place in step_spec.locations),
        blocks=tuple(place.block for place in step_spec.locations),
        constant_bytes=constant,
        rank_bytes=rank_bytes,
        fixed_bytes=(0,) * len(planned),
        storages=(),
        transient_bytes=step_spec.rehearse(planned) - constant - modules,
    )


def largest_batch(step_spec: StepSpec, ranks: Mapping[str, int], limit: int) -> tuple[StepSpec, int]:
    """The step with the largest batch, halved again and again, whose peak is within ``limit`` bytes; and that peak.

    Raises:
        BudgetError: a single row needs more.
    """
    planned = [ranks[place.name] for place in step_spec.locations]
    while (peak := step_spec.rehearse(planned)) > limit:
        rows = step_spec.conditions.batch.rows // 2
        if not rows:
            raise BudgetError(
                f"The budget of {show_bytes(limit)} is {peak - limit} bytes ({show_bytes(peak - limit)}) short of "
                f"the {show_bytes(peak)} that one row needs on its way through the frozen backbone and the composed "
                "adapters; raise it, give a smaller --max-length, or choose a smaller backbone."
            )
        step_spec = with_rows(step_spec, rows)
    return step_spec, peak


def with_rows(step_spec: StepSpec, rows: int) -> StepSpec:
    """Raises PlanError for a batch of images of several sizes, which cannot be cut by rows."""
    before = step_spec.conditions
    try:
        batch, evaluation = before.batch.with_rows(rows), before.evaluation and before.evaluation.with_rows(rows)
    except RuntimeError as error:
        raise PlanError(f"The batch cannot shrink, for {error}; plan with a smaller --batch-size.") from error
    return replace(step_spec, conditions=replace(before, batch=batch, evaluation=evaluation))


def composition_instead(step_spec: StepSpec, learned: int, limit: int) -> str:
    """What to add to the sentence of a budget that admits no training: that composing ``learned`` tasks would fit.

    Nothing where it would not.
    """
    if not learned:
        return ""
    try:
        frozen = replace(with_rows(step_spec, 1), parametrization_of=lambda _: FrozenParametrization())
        peak = frozen.rehearse((FULL_RANK,) * len(step_spec.locations))
    except PlanError:  # planning raises it; here it would hide what was wrong first
        return ""
    if peak > limit:
        return ""
    return f", or compose learned tasks without any training, for about {show_bytes(peak)}: --method soup or lorahub"


def require_no_constraints(constraints: Constraints) -> None:
    """Raises PlanError for constraints on a plan whose ranks are fixed."""
    if replace(constraints, vision_tower=ANY.vision_tower) != ANY:
        raise PlanError(
            "A method that composes learned adapters takes them as they are, and cannot obey constraints on ranks, "
            "locations or parameters; leave those out, or choose --method taskit."
        )
