"""What strategies cost: the additive profiles of every micro-batch, the ends of the scale, and a plan's bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from taskit.backbone.target_modules import Location
from taskit.memory.profile import MemoryProfile
from taskit.planning.plan import MemoryEstimate, PlannedLocation
from taskit.planning.step_spec import FEW, FULL_RANK, StepSpec
from taskit.scheduler import sole_bytes
from taskit.step.parametrization import Parametrization
from taskit.transfer.importance import Sources


@dataclass(frozen=True, slots=True)
class Pricing:
    """What strategies cost: the additive profile, and the rehearsed ends of the budget scale.

    ``by_micro_batch`` has the profile of every micro-batch that may be chosen.
    """

    profile: MemoryProfile
    no_update_bytes: int
    full_lora_bytes: int
    by_micro_batch: Mapping[int, MemoryProfile] = field(default_factory=dict)
    logits_bytes: int = 0  # that a loss which makes all logits at once would take beyond the one in chunks


def price(step_spec: StepSpec) -> Pricing:
    """Trace the training step, and rehearse the ends of the budget scale.

    Its upper end is that of a step that recomputes nothing, so that a percentage means the same bytes either way.
    """
    profile, nothing = step_spec.trace(), (0,) * len(step_spec.locations)
    kept = step_spec.checkpointing(False).trace() if step_spec.conditions.gradient_checkpointing else profile
    full, no_update = kept.bytes((FULL_RANK,) * len(step_spec.locations)), step_spec.rehearse(nothing)
    own = 0
    if step_spec.conditions.loss_chunk:
        conditions = replace(step_spec.conditions, loss_chunk=None)
        own = replace(step_spec, conditions=conditions).trace().bytes((FULL_RANK,) * len(step_spec.locations)) - full
    return Pricing(profile, no_update, full, _by_micro_batch(step_spec, profile), own)


def _by_micro_batch(step_spec: StepSpec, whole: MemoryProfile) -> dict[int, MemoryProfile]:
    """The profile of every micro-batch: sizes grow linearly with the rows, so that two are traced."""
    if len(step_spec.micro_batches) < 2:
        return {one.size: whole for one in step_spec.micro_batches}
    largest, *smaller = step_spec.micro_batches
    few = next((one for one in smaller if one.training.rows <= FEW), smaller[-1])
    profile, rows = step_spec.passing(few.size).trace(), (few.training.rows, largest.training.rows)
    found = {}
    for one in step_spec.micro_batches:
        found[one.size] = profile.at_rows(one.training.rows, rows[0], whole, rows[1])
    return found


def copied(profile: MemoryProfile, parametrization: Parametrization) -> MemoryProfile:
    """The profile where a parametrization trains each unit of rank several times."""
    copies = (parametrization.copies(name) for name in profile.locations)
    return replace(profile, rank_bytes=tuple(a * b for a, b in zip(profile.rank_bytes, copies, strict=True)))


def estimate(pricing: Pricing, ranks: Sequence[int], peak: int) -> MemoryEstimate:
    """Split the rehearsed peak into parts that add up to it exactly."""
    parts = pricing.profile.breakdown(ranks)
    transient = peak - parts.constant_bytes - parts.module_bytes - parts.activation_bytes
    # At a peak inside the backward pass some of the kept activations are gone already.
    blocks = _without(pricing.profile.activations_by_block(ranks), max(-transient, 0))
    return MemoryEstimate(
        constant_bytes=parts.constant_bytes,
        module_bytes=parts.module_bytes,
        activation_bytes=parts.activation_bytes + min(transient, 0),
        transient_bytes=max(transient, 0),
        peak_bytes=peak,
        no_update_bytes=pricing.no_update_bytes,
        full_lora_bytes=pricing.full_lora_bytes,
        block_bytes=blocks,
    )


def _without(blocks: Sequence[int], gone: int) -> tuple[int, ...]:
    """The bytes of each block after the backward pass, which starts at the last one, has freed ``gone`` of them."""
    left = list(blocks)
    for k in range(len(left) - 1, 0, -1):
        freed = min(left[k], gone)
        left[k], gone = left[k] - freed, gone - freed
    left[0] -= gone
    return tuple(left)


def planned_locations(
    locations: Sequence[Location], sources: Sequence[Sources], ranks: Sequence[int], profile: MemoryProfile
) -> tuple[PlannedLocation, ...]:
    """Every candidate as it stands in the plan; ``sources`` are the addends of its importance."""
    sole = sole_bytes(profile, ranks)
    return tuple(
        PlannedLocation(
            name=place.name,
            block=place.block,
            role=place.role,
            importance=sum(sources[k].values()),
            rank=rank,
            bytes=sole[k] + profile.fixed_bytes[k] + rank * profile.rank_bytes[k] if rank else 0,
            sources=sources[k],
        )
        for k, (place, rank) in enumerate(zip(locations, ranks, strict=True))
    )
