"""The methods that train plain LoRA or none, and differ in the ranks alone: taskit, uniform and the linear head."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from taskit.errors import PlanError
from taskit.memory.profile import MemoryProfile
from taskit.methods.method import MethodContext, Option, Options, ResolvedMethod, Solve, the_same
from taskit.scheduler import Schedule, schedule, schedule_uniform
from taskit.step.parametrization import PLAIN, Parametrization


@dataclass(frozen=True, slots=True)
class PlainMethod:
    """A method that trains plain LoRA, and differs in the ranks alone."""

    name: str
    explanation: str
    solve: Solve
    by_importance: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)

    def resolve(self, context: MethodContext, given: Options) -> ResolvedMethod:  # noqa: ARG002
        return ResolvedMethod(self.solve, partial(the_same, {}), by_importance=self.by_importance)

    def parametrization(self, options: Options) -> Parametrization:  # noqa: ARG002
        return PLAIN


@dataclass(frozen=True, slots=True)
class HeadAlone:
    """The reference that any LoRA has to beat."""

    name: str = "head"
    explanation: str = (
        "Only a new last layer is trained on what the model computes already. It is the fastest and needs the least "
        "memory; it is enough where the model knows the subject, and cannot teach it anything new."
    )

    @property
    def options(self) -> Mapping[str, Option]:
        return {}

    def resolve(self, context: MethodContext, given: Options) -> ResolvedMethod:  # noqa: ARG002
        if not context.heads:
            raise PlanError("This task writes text and has no head to train; choose --method taskit.")
        return ResolvedMethod(insert_nothing, partial(the_same, {}))

    def parametrization(self, options: Options) -> Parametrization:  # noqa: ARG002
        return PLAIN


def insert_nothing(profile: MemoryProfile, *_: Any, **__: Any) -> Schedule:
    """Called as `taskit.scheduler.schedule`."""
    ranks = (0,) * len(profile.locations)
    return Schedule(ranks, 0.0, profile.bytes(ranks))


TASKIT = PlainMethod(
    "taskit",
    "TaskIT asks which layers mattered to similar tasks that were learned before, and spends the memory budget where "
    "they did: each projection matrix gets a LoRA of its own rank, or none.",
    schedule,
    by_importance=True,
)
UNIFORM = PlainMethod(
    "uniform",
    "The usual LoRA: every projection matrix gets the same rank, the largest that fits the memory budget. It is the "
    "yardstick for everything else.",
    schedule_uniform,
)
