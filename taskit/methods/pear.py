"""Pear (2024): after a short warm-up the least useful LoRAs are pruned, and their places share those of the best.

methods.md §5.  Our readings: a pair is scored by |<dW, dL/d dW>| = |<B, dL/dB>| of each batch, averaged; only LoRAs
of equal shape and rank are shared; the warm-up takes its epochs from those of the plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from taskit.errors import PlanError
from taskit.methods.method import MethodContext, Option, Options, ResolvedMethod, Solve, between, one_of, the_same
from taskit.methods.sharing import Shape, classes_of
from taskit.step.parametrization import Parametrization, Ranks

if TYPE_CHECKING:
    from taskit.backbone.target_modules import Location


@dataclass(frozen=True, slots=True)
class Pear:
    """Pear over the ranks that ``solve`` chooses."""

    name: str
    solve: Solve
    options: Mapping[str, Option] = field(
        default_factory=lambda: {
            "ratio": between(0.5, 0, 1),
            "warmup": between(0.1, 0, 1),
            "checkpoint": one_of("none", "DA", "SBA"),
        }
    )

    @property
    def explanation(self) -> str:
        return (
            "Pear trains an ordinary LoRA for a few epochs, asks which of its matrices help least, and lets their "
            "places share the LoRA of the ones that help most. It trains half the parameters; the memory at the "
            "start is that of the ordinary LoRA."
            + (" Here TaskIT chooses where LoRA goes and at which rank." if self.name != "pear" else "")
        )

    def resolve(self, context: MethodContext, given: Options) -> ResolvedMethod:
        shapes = {place.name: (place.in_features, place.out_features) for place in context.places}
        options = {**given, "shapes": {name: list(shape) for name, shape in shapes.items()}}
        return ResolvedMethod(self.solve, partial(the_same, options), require=partial(_require, given["ratio"]))

    def parametrization(self, options: Options) -> Parametrization:
        from taskit.methods.shared import Shared

        shapes: dict[str, Shape] = {name: (a, b) for name, (a, b) in options["shapes"].items()}
        return Shared(shapes, options["ratio"], options["warmup"], options["checkpoint"])


def _require(ratio: float, places: "Sequence[Location]", ranks: Ranks) -> None:
    shapes = {place.name: (place.in_features, place.out_features) for place in places}
    if not any(int(ratio * len(names)) for names in classes_of(shapes, ranks)):
        raise PlanError(
            "Pear shares a LoRA between locations of equal shape and rank, and this plan has too few of them; give "
            "a larger budget or ratio, or choose --method taskit."
        )
