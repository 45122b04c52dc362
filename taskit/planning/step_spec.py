"""The training step of a task as memory rehearses it: its specification, its additive profile, the price of ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from taskit.backbone.config import WRITING
from taskit.backbone.heads import head_names
from taskit.backbone.loading import empty_model, quantization_config
from taskit.backbone.sources import Backbone
from taskit.backbone.target_modules import Location, find_locations
from taskit.data import Collator, Dataset
from taskit.data.info import DataInfo
from taskit.errors import PlanError, first_line
from taskit.memory.conditions import Conditions
from taskit.memory.device import runtime_bytes, sharing_bytes, training_device
from taskit.memory.numbers import extrapolate_peak, extrapolate_profile
from taskit.memory.profile import MemoryProfile
from taskit.memory.quantized import quantize_empty
from taskit.memory.rehearsal import rehearse, take_step
from taskit.memory.simulated_device import simulated_device
from taskit.memory.trace import trace
from taskit.planning.micro_batches import MicroBatch, longest_batches
from taskit.planning.recipe import Recipe
from taskit.step.loss import loss_chunk
from taskit.step.parametrization import PLAIN, Parametrization, Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FEW = 2  # rows of the smaller batch that is traced: one alone spares copies, for its transposes are contiguous
FULL_RANK = 8  # "full LoRA" is what PEFT users run without a plan: rank 8 at every candidate


Found = TypeVar("Found")


def quiet(_: str) -> None:
    """An ``on_progress`` that reports nothing."""


def plain(_: Ranks) -> Parametrization:
    """The parametrization of any strategy where a method asks for no other."""
    return PLAIN


@dataclass(frozen=True, slots=True)
class StepSpec:
    """What a strategy is rehearsed on: the empty model, its candidates and heads, and the conditions."""

    build: "Callable[[], PreTrainedModel]"
    locations: tuple[Location, ...]
    heads: tuple[str, ...]
    head_parameters: int
    task: str
    conditions: Conditions
    on_progress: Callable[[str], None] = quiet
    quantization: str | None = None
    sharing_bytes: int = 0  # what a device needs beyond the whole backbone where several share it, mostly below 0
    parametrization_of: Callable[[Ranks], Parametrization] = plain  # how a strategy is trained
    rows: int = 1  # of an optimizer step
    training_rows: int = 1  # of an epoch
    micro_batches: tuple[MicroBatch, ...] = ()  # that may be chosen, the largest first

    def checkpointing(self, on: bool, blocks: tuple[str, ...] | None = None) -> "StepSpec":
        """The same where ``blocks``, or all, are recomputed in the backward pass, or none is."""
        return replace(self, conditions=replace(self.conditions, gradient_checkpointing=on, recomputed=blocks))

    def passing(self, micro_batch: int) -> "StepSpec":
        """The same step in micro-batches of so many rows, one of those that may be chosen."""
        chosen = next(one for one in self.micro_batches if one.size == micro_batch)
        count = -(-self.rows // chosen.training.rows)
        conditions = replace(
            self.conditions, batch=chosen.training, evaluation=chosen.evaluation, gradient_accumulation=count
        )
        return replace(self, conditions=conditions)

    def rehearse(self, ranks: Sequence[int]) -> int:
        """The peak, in bytes, of training with these ranks, one for each location.

        Raises:
            PlanError: no step can be taken with the model; names what stopped it.
        """
        step, parametrization = self._step(ranks), self.parametrization_of(self.strategy(ranks))
        on_numbers = partial(extrapolate_peak, partial(take_step, *step, parametrization=parametrization))
        return (
            self._measure(partial(rehearse, *step, parametrization=parametrization), on_numbers) + self.sharing_bytes
        )

    def trace(self) -> MemoryProfile:
        """The additive profile, its transient bytes those of full LoRA.

        Raises:
            PlanError: as ``rehearse``.
        """
        measure = partial(trace, self.build, self.locations, self.heads, self.task)
        profile = self._measure(measure, partial(self._trace_on_numbers, measure))
        return replace(profile, constant_bytes=profile.constant_bytes + self.sharing_bytes)

    def _trace_on_numbers(
        self, measure: Callable[[Conditions], MemoryProfile], conditions: Conditions
    ) -> MemoryProfile:
        full = (FULL_RANK,) * len(self.locations)
        profile = extrapolate_profile(measure, conditions)
        peak = extrapolate_peak(partial(take_step, *self._step(full)), conditions)
        return replace(profile, transient_bytes=max(peak - profile.bytes(full), 0))

    def _step(self, ranks: Sequence[int]) -> tuple[Any, ...]:
        """What to rehearse: all but the conditions."""
        return self.build, self.strategy(ranks), self.heads, self.task

    def strategy(self, ranks: Sequence[int]) -> dict[str, int]:
        """The rank of each location by its name."""
        return {place.name: rank for place, rank in zip(self.locations, ranks, strict=True)}

    def _measure(
        self, measure: "Callable[[Conditions], Found]", on_numbers: "Callable[[Conditions], Found]"
    ) -> "Found":
        """``measure`` on meta tensors, or where they will not do, ``on_numbers``, which is reported."""
        try:
            return measure(self.conditions)
        except RuntimeError as error:
            if self.quantization:
                raise PlanError(
                    f"The memory of training this backbone in {self.quantization} cannot be foreseen, because it "
                    f"cannot be traced without numbers ({first_line(error)}) and quantised weights cannot be made "
                    "up; plan without --quantize."
                ) from error
            self.on_progress(
                f"this model cannot be traced without numbers ({first_line(error)}): taking real steps with two rows "
                "and with three"
            )
        try:
            return on_numbers(self.conditions)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            raise PlanError(
                "The memory of training this backbone cannot be foreseen, because a step of it fails at: "
                f"{first_line(error)}; choose another backbone."
            ) from error

    def trainable_parameters(self, ranks: Sequence[int]) -> int:
        strategy = self.strategy(ranks)
        parametrization = self.parametrization_of(strategy)
        return (self.head_parameters if parametrization.trains else 0) + parametrization.parameters(
            self.locations, strategy
        )


def build_step_spec(
    backbone: Backbone,
    data: Dataset,
    recipe: Recipe,
    collator: Collator,
    on_progress: Callable[[str], None] = quiet,
    vision_tower: bool = False,
    parametrization_of: Callable[[Ranks], Parametrization] = plain,
    seed: int = 0,
) -> StepSpec:
    """Everything a rehearsal needs; reads no weight.  ``vision_tower`` is that of `find_locations`.

    The step is that of the whole batch, or of the micro-batch that the recipe names; ``seed`` is that of the plan,
    which decides what rows train.

    Raises:
        PlanError: the backbone has nothing to adapt.
    """
    device = training_device()
    build = partial(empty_build, backbone, data.info, device)
    model = build()
    locations, heads = find_locations(model, vision_tower), head_names(model, data.info.task)
    if not locations:
        raise PlanError(f"{backbone.id} has no projection matrix that LoRA could adapt; choose another backbone.")
    if backbone.quantization and recipe.shards > 1:
        raise PlanError("A quantised backbone cannot be shared out; plan without --quantize or without --shards.")
    micro_batches, training_rows = longest_batches(data, collator, recipe, seed)
    first, rows = micro_batches[0].training, min(recipe.batch_size, training_rows)
    return StepSpec(
        build=build,
        locations=locations,
        heads=heads,
        head_parameters=sum(p.numel() for name in heads for p in model.get_submodule(name).parameters()),
        task=data.info.task,
        conditions=Conditions(
            batch=first,
            optimizer=recipe.optimizer,
            gradient_accumulation=-(-rows // first.rows),
            gradient_checkpointing=bool(recipe.gradient_checkpointing),
            device=device,
            runtime_bytes=runtime_bytes(device),
            evaluation=micro_batches[0].evaluation,
            recomputed=recipe.recomputed_blocks,
            loss_chunk=recipe.loss_chunk or _loss_chunk(backbone, data.info, device),
        ),
        on_progress=cache(on_progress),  # once is enough
        quantization=backbone.quantization,
        sharing_bytes=sharing_bytes(model, heads, recipe.shards),
        parametrization_of=parametrization_of,
        rows=rows,
        micro_batches=micro_batches,
        training_rows=training_rows,
    )


def _loss_chunk(backbone: Backbone, info: DataInfo, device: str) -> int | None:
    """Tokens whose logits are made at once; None for what writes no text, or whose head cannot be taken apart."""
    if info.task not in WRITING:
        return None
    model = empty_model(backbone, task=info.task, labels=info.labels)  # fewer bits change nothing of its head
    try:
        with simulated_device(device):
            return loss_chunk(model)
    except RuntimeError:  # it reads numbers of its inputs
        return None


def empty_build(backbone: Backbone, info: DataInfo, device: str) -> "PreTrainedModel":
    """The model without weights, laid out as it will be loaded."""
    model = empty_model(backbone, task=info.task, labels=info.labels)
    if not backbone.quantization:
        return model
    return quantize_empty(model, quantization_config(backbone, model), device)
