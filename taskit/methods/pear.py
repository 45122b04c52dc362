"""Pear (2024): after a short warm-up the least useful LoRAs are pruned, and their modules share those of the best.

Who shares whose (its steps 3 and 4): the worst of each shape take over from its best, rank to rank.  Our readings:
a pair is scored by |<dW, dL/d dW>| = |<B, dL/dB>| of each batch, averaged; only LoRAs of equal shape and rank are
shared; the warm-up takes its epochs from those of the plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from taskit.errors import PlanError
from taskit.methods.method import MethodContext, Option, Options, ResolvedMethod, between, chosen_by, one_of, the_same
from taskit.step.parametrization import Parametrization, Ranks

if TYPE_CHECKING:
    from taskit.backbone.target_modules import Location


@dataclass(frozen=True, slots=True)
class Pear:
    """Pear over one rank everywhere, or ranks chosen by importance."""

    name: str
    by_importance: bool = False
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
            "modules share the LoRA of the ones that help most. It trains half the parameters; the memory at the "
            "start is that of the ordinary LoRA."
            + (" Here TaskIT chooses where LoRA goes and at which rank." if self.by_importance else "")
        )

    def resolve(self, context: MethodContext, given: Options) -> ResolvedMethod:
        shapes = {place.name: (place.in_features, place.out_features) for place in context.places}
        options = {**given, "shapes": {name: list(shape) for name, shape in shapes.items()}}
        require = partial(_require, given["ratio"])
        return ResolvedMethod(**chosen_by(self.by_importance), options=partial(the_same, options), require=require)

    def parametrization(self, options: Options) -> Parametrization:
        from taskit.methods.shared import Shared

        shapes = {name: (a, b) for name, (a, b) in options["shapes"].items()}
        return Shared(shapes, options["ratio"], options["warmup"], options["checkpoint"])


def _require(ratio: float, places: "Sequence[Location]", ranks: Ranks) -> None:
    from taskit.methods.shared import classes_of

    shapes = {place.name: (place.in_features, place.out_features) for place in places}
    if not any(int(ratio * len(names)) for names in classes_of(shapes, ranks)):
        raise PlanError(
            "Pear shares a LoRA between locations of equal shape and rank, and this plan has too few of them; give "
            "a larger budget or ratio, or choose --method taskit."
        )
