"""What each lever would do to the peak of a plan: the same ranks, rehearsed under other conditions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from taskit.backbone.sources import QUANTIZATIONS
from taskit.errors import TaskITError
from taskit.memory.conditions import BatchShape
from taskit.planning.context import PlanningContext
from taskit.planning.plan import Plan
from taskit.planning.step_spec import StepSpec, empty_build
from taskit.terminal import show_bytes

BATCH, LENGTH, CHECKPOINTING, QUANTIZATION = "batch_size", "max_length", "gradient_checkpointing", "quantization"
FEWEST_TOKENS = 4  # that a recipe takes


@dataclass(frozen=True, slots=True)
class Effect:
    """``lever`` turned to ``value`` changes the peak by ``bytes``; None where that cannot be had, for ``reason``."""

    lever: str
    value: str
    bytes: int | None
    reason: str = ""


def effects(context: PlanningContext, plan: Plan) -> tuple[Effect, ...]:
    """One effect for each lever that can be turned: half the rows at once, half the length, recomputed blocks, fewer
    bits.

    Takes a rehearsal for each, and reads no weight.
    """
    recipe, size = plan.training, plan.training.micro_batch or plan.training.batch_size
    step_spec = context.step_spec.passing(size)
    step_spec = step_spec.checkpointing(bool(recipe.gradient_checkpointing), recipe.recomputed_blocks)
    return _effects(context, step_spec, tuple(plan.ranks.values()))


def _effects(context: PlanningContext, step_spec: StepSpec, ranks: Sequence[int]) -> tuple[Effect, ...]:
    before = step_spec.rehearse(ranks)
    turned = _turned(context, step_spec)
    return tuple(_effect(lever, value, other, ranks, before) for lever, value, other in turned)


def levers_left(context: PlanningContext) -> str:
    """What to add to the sentence of a budget that nothing fits: which levers are left, with their bytes."""
    least = context.solve(context.floor)
    found = _effects(context, context.step_spec_of(least), least.ranks)
    left = [one for one in found if one.lever in (LENGTH, QUANTIZATION) and (one.bytes or 0) < 0]
    names = {LENGTH: "--max-length", QUANTIZATION: "--quantize"}
    named = "leave --micro-batch out, " if (context.recipe.micro_batch or 1) > 1 else ""
    words = [f"{names[one.lever]} {one.value} ({show_bytes(-(one.bytes or 0))} less)" for one in left]
    if not words:
        return f", or {named}choose a smaller model"
    return f", or {named}take {', '.join(words)}, or a smaller model"


def _effect(lever: str, value: str, step_spec: StepSpec, ranks: Sequence[int], before: int) -> Effect:
    try:
        return Effect(lever, value, step_spec.rehearse(ranks) - before)
    except TaskITError as error:
        return Effect(lever, value, None, str(error))


def _turned(context: PlanningContext, step_spec: StepSpec) -> Iterator[tuple[str, str, StepSpec]]:
    """(lever, its other value, the step that this makes)."""
    conditions = step_spec.conditions
    half = conditions.batch.rows // 2
    batch = _with_rows(conditions.batch, min(half, conditions.batch.rows)) if half else None
    if batch:
        yield BATCH, str(half), replace(step_spec, conditions=replace(conditions, batch=batch))
    longest = None if conditions.batch.known else _length(conditions.batch)  # an image cannot be cut
    if longest is not None and longest >= 2 * FEWEST_TOKENS:
        batch = _shortened(conditions.batch, longest, longest // 2)
        yield LENGTH, str(longest // 2), replace(step_spec, conditions=replace(conditions, batch=batch))
    again = not conditions.gradient_checkpointing
    yield CHECKPOINTING, "on" if again else "off", step_spec.checkpointing(again)
    for bits in QUANTIZATIONS:
        if bits == context.backbone.quantization:
            continue
        build = partial(empty_build, replace(context.backbone, quantization=bits), context.data, conditions.device)
        yield QUANTIZATION, bits or "none", replace(step_spec, build=build)


def _with_rows(batch: BatchShape, rows: int) -> BatchShape | None:
    """The batch with so many rows, None where its images are of several sizes."""
    try:
        return batch.with_rows(rows)
    except RuntimeError:
        return None


def _length(batch: BatchShape) -> int | None:
    """Tokens of the longest row, None where the rows are no texts."""
    return next((shape[1] for name, shape, _ in batch.tensors if name == "input_ids"), None)


def _shortened(batch: BatchShape, longest: int, length: int) -> BatchShape:
    """The batch with every row cut to ``length``; other tensors of another length stay."""
    shapes = tuple(
        (name, (shape[0], length, *shape[2:]) if shape[1:2] == (longest,) else shape, dtype)
        for name, shape, dtype in batch.tensors
    )
    return BatchShape(shapes, learned=None if batch.learned is None else min(batch.learned, batch.rows * length))
