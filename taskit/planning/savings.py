"""What a plan did to fit, cheapest first, each in a sentence with its bytes; and its recipe, nothing left open."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from taskit.planning.context import PlanningContext
from taskit.planning.plan import Saving
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import FULL_RANK, StepSpec
from taskit.scheduler import JointSchedule


def decided(recipe: Recipe, step_spec: StepSpec, ranks: Sequence[int]) -> Recipe:
    """The recipe with nothing left open, for a plan of ``ranks`` whose step is ``step_spec``."""
    conditions = step_spec.conditions
    size = recipe.micro_batch or next(one.size for one in step_spec.micro_batches if one.training == conditions.batch)
    return replace(
        recipe.passing(size),
        learning_rate=recipe.rate(ranks),
        rate_follows_ranks=recipe.learning_rate is None,
        gradient_checkpointing=conditions.gradient_checkpointing,
        recomputed_blocks=conditions.recomputed,
        loss_chunk=conditions.loss_chunk,
    )


def longest_of(step_spec: StepSpec) -> str:
    """What the longest micro-batch that trains holds, in words."""
    shape = step_spec.conditions.batch
    rows = f"{shape.rows} row{'s' * (shape.rows != 1)}"
    tokens = next((size[1] for name, size, _ in shape.tensors if name == "input_ids"), None)
    if tokens is None:
        return rows
    if shape.learned is None:
        return f"{rows} of {tokens} tokens"
    whole = "" if step_spec.conditions.loss_chunk else ", and all their logits at once, as the model's own loss does"
    return f"{rows} of {tokens} tokens, at most {shape.learned} of them learned{whole}"


def savings(context: PlanningContext, found: JointSchedule) -> tuple[Saving, ...]:
    """Everything by which the step differs from LoRA r = 8 everywhere with the whole batch at once, cheapest first.

    Bytes are those of the additive profiles, each with all before it done.
    """
    return tuple(_savings(context, found)) if context.resolved.fixed is None else ()


def _savings(context: PlanningContext, found: JointSchedule) -> Iterator[Saving]:
    whole, step = context.steps[0], context.steps[found.step]
    everywhere = (FULL_RANK,) * len(found.ranks)
    before, chunk = whole.profile.bytes(everywhere), context.step_spec.conditions.loss_chunk
    if chunk and context.pricing.logits_bytes > 0:
        yield Saving(
            f"Logits are made for {chunk} tokens at once, and only for those that are learned; nothing changes.",
            context.pricing.logits_bytes,
        )
    if step.micro_batch < whole.micro_batch:
        after = step.profile.bytes(everywhere)
        yield Saving(f"{_micro_batches(context.recipe.batch_size, step.micro_batch)}; nothing changes but the order "
                     "of sums.", before - after)  # fmt: skip
        before = after
    if found.recomputed:
        after = step.profile.recomputing(found.recomputed).bytes(everywhere)
        blocks = len(step.profile.recomputable)
        yield Saving(
            f"{len(found.recomputed)} of {blocks} blocks are computed again in the backward pass; nothing changes, "
            "but a step takes longer.",
            before - after,
        )
        before = after
    after = found.predicted_bytes
    if after < before and any(found.ranks):
        inserted = sum(rank > 0 for rank in found.ranks)
        yield Saving(
            f"LoRA at {inserted} of {len(found.ranks)} modules, where it matters most, instead of rank {FULL_RANK} "
            "at all; this costs quality.",
            before - after,
        )


def _micro_batches(rows: int, size: int) -> str:
    count, rest = -(-rows // size), rows % size
    ragged = f", the last of {rest}," if rest else ""
    return f"{count} micro-batches of {size}{ragged} instead of {rows} rows at once"
