"""The linear head alone: nothing is inserted, so that no gradient passes through the backbone."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from taskit.errors import PlanError
from taskit.memory.profile import MemoryProfile
from taskit.methods.method import MethodContext, Option, Options, ResolvedMethod, the_same
from taskit.scheduler import Schedule
from taskit.step.parametrization import PLAIN, Parametrization


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
