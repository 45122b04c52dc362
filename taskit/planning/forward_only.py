"""The memory of methods that train nothing: that of a forward pass, whose batch can be as small as one row.

What such a method finds does not depend on the batch, so that a budget decides the batch and nothing else.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from taskit.errors import BudgetError, PlanError
from taskit.memory.live import standing_tensors
from taskit.memory.profile import MemoryProfile
from taskit.planning.budget import show_bytes
from taskit.planning.step_spec import FULL_RANK, Stage
from taskit.scheduler import ANY, Constraints
from taskit.step.parametrization import Form, Ranks


class Resting(Form):
    """A LoRA that nobody trains, heads included; ``pooled`` further ones of its size lie in memory beside it."""

    trains = False

    @property
    def pooled(self) -> int:
        return 0

    def insert(self, model: torch.nn.Module, ranks: Ranks) -> None:  # noqa: ARG002
        model.requires_grad_(False)

    def parameters(self, places: object, ranks: Ranks) -> int:  # noqa: ARG002
        return 0


def forward_profile(stage: Stage, ranks: Mapping[str, int]) -> MemoryProfile:
    """The profile whose peak for ``ranks`` is that of a forward pass: nothing is kept for a backward one.

    Raises:
        PlanError: as `Stage.rehearse`.
    """
    planned = [ranks.get(place.name, 0) for place in stage.locations]
    form, width = stage.form_of(stage.strategy(planned)), stage.build().dtype.itemsize
    copies = 1 + getattr(form, "pooled", 0)
    rank_bytes = tuple(copies * width * (place.in_features + place.out_features) for place in stage.locations)
    constant = sum(tensor.nbytes for tensor in standing_tensors(stage.build()))
    modules = sum(rank * size for rank, size in zip(planned, rank_bytes, strict=True))
    return MemoryProfile(
        locations=tuple(place.name for place in stage.locations),
        blocks=tuple(place.block for place in stage.locations),
        constant_bytes=constant,
        rank_bytes=rank_bytes,
        fixed_bytes=(0,) * len(planned),
        storages=(),
        transient_bytes=stage.rehearse(planned) - constant - modules,
    )


def largest_batch(stage: Stage, ranks: Mapping[str, int], limit: int) -> tuple[Stage, int]:
    """The stage with the largest batch, halved again and again, whose peak is within ``limit`` bytes; and that peak.

    Raises:
        BudgetError: a single row needs more.
    """
    planned = [ranks[place.name] for place in stage.locations]
    while (peak := stage.rehearse(planned)) > limit:
        rows = stage.conditions.batch.rows // 2
        if not rows:
            raise BudgetError(
                f"The budget of {show_bytes(limit)} is {peak - limit} bytes ({show_bytes(peak - limit)}) short of "
                f"the {show_bytes(peak)} that one row needs on its way through the frozen backbone and the composed "
                "adapters; raise it, give a smaller --max-length, or choose a smaller backbone."
            )
        stage = with_rows(stage, rows)
    return stage, peak


def with_rows(stage: Stage, rows: int) -> Stage:
    """Raises PlanError for a batch of images of several sizes, whose rows cannot be told apart."""
    try:
        batch = stage.conditions.batch.with_rows(rows)
    except RuntimeError as error:
        raise PlanError(f"The batch cannot shrink, for {error}; plan with a smaller --batch-size.") from error
    return replace(stage, conditions=replace(stage.conditions, batch=batch))


def composition_instead(stage: Stage, learned: int, limit: int) -> str:
    """What to add to the sentence of a budget that admits no training: that composing ``learned`` tasks would fit.

    Nothing where it would not.
    """
    if not learned:
        return ""
    try:
        resting = replace(with_rows(stage, 1), form_of=lambda _: Resting())
        peak = resting.rehearse((FULL_RANK,) * len(stage.locations))
    except PlanError:  # it is told at planning; here it would hide what was wrong first
        return ""
    if peak > limit:
        return ""
    return f", or compose learned tasks without any training, for about {show_bytes(peak)}: --method soup or lorahub"


def require_no_wishes(constraints: Constraints) -> None:
    """Raises PlanError where a plan of fixed ranks is asked to obey."""
    if replace(constraints, vision_tower=ANY.vision_tower) != ANY:
        raise PlanError(
            "A method that composes learned adapters takes them as they are, and cannot obey constraints on ranks, "
            "locations or parameters; leave those out, or choose --method taskit."
        )
