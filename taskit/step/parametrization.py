"""How a LoRA is parametrized while it trains: plainly, or with lora_A and lora_B made from other parameters.

A parametrization never changes what the adapted model computes with, only what the two matrices are made of.  So
everything around it (rehearsal, trainer, checkpoints, export) handles a plain PEFT model, and after the collapse it
is one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskit.backbone.sources import Backbone
    from taskit.backbone.target_modules import Location
    from taskit.data.info import DataInfo

Ranks = Mapping[str, int]  # location -> rank, 0 for no insertion
Decisions = Mapping[str, Any]  # JSON: what was decided from the data before the first step


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a parametrization may use before the first step: the adapted model with real weights, and the data.

    ``ranks``, ``seed`` and ``epochs`` are those of the plan.  ``batches()`` gives the training rows in their order,
    and ``draw(count)`` so many at random, the same in every process; ``warm_up(epochs)`` trains whatever requires a
    gradient for so long.  ``on_progress`` is called with sentences for the person who trains.
    """

    backbone: "Backbone"
    data: "DataInfo"
    ranks: Ranks
    seed: int
    epochs: int
    model: Any
    batches: Callable[[], Iterable[Mapping[str, Any]]]
    warm_up: Callable[[int], None]
    draw: Callable[[int], Iterable[Mapping[str, Any]]]
    on_progress: Callable[[str], None]


class Parametrization:
    """Plain LoRA; every other parametrization overrides what it does differently.

    Where nothing ``trains``, all is done once the model is prepared.
    """

    trains = True

    def widths(self, ranks: Ranks) -> Ranks:
        """The rank that PEFT inserts where the plan gives ``ranks``."""
        return ranks

    def copies(self, name: str) -> int:  # noqa: ARG002
        """How many times each unit of rank is trained at a location, at most: what the additive profile goes by."""
        return 1

    def insert(self, model: Any, ranks: Ranks) -> None:
        """Re-parametrise the LoRA of an adapted ``model``, which may be on the meta device."""

    def parameters(self, places: "Sequence[Location]", ranks: Ranks) -> int:
        """How many parameters are trained beside the heads."""
        widths = self.widths(ranks)
        return sum(widths[place.name] * (place.in_features + place.out_features) for place in places)

    def epochs(self, total: int) -> int:
        """How many of the plan's epochs are left for the training proper."""
        return total

    def prepare(self, preparation: Preparation) -> Decisions | None:
        """Give the weights their start; returns what was decided, which the run folder keeps with the weights.

        None where there is nothing to keep.  Deterministic, so that after a kill it is done again.
        """

    def begin(self, model: Any, decisions: Decisions | None) -> None:
        """The last change before the first step, or before the first one after a stop."""

    def collapse(self, model: Any) -> float:  # noqa: ARG002
        """Make ``model`` a plain PEFT LoRA; returns the part of the update's energy ||dW||_F^2 that this discards."""
        return 0.0


PLAIN = Parametrization()


class FrozenParametrization(Parametrization):
    """A LoRA that is not trained, nor are the heads; ``pooled`` further ones of its size lie in memory beside it."""

    trains = False

    @property
    def pooled(self) -> int:
        return 0

    def insert(self, model: Any, ranks: Ranks) -> None:  # noqa: ARG002
        model.requires_grad_(False)

    def parameters(self, places: object, ranks: Ranks) -> int:  # noqa: ARG002
        return 0


def lora_pair(model: Any, name: str) -> tuple[Any, Any]:
    """The linears (lora_A, lora_B) at the location ``name`` of an adapted ``model``."""
    layer = model.get_submodule(f"base_model.model.{name}")
    return layer.lora_A["default"], layer.lora_B["default"]


def plain_again(model: Any) -> None:
    """Take the parametrisations off every LoRA of ``model``, its weights left as they compute."""
    from torch.nn.utils import parametrize

    sides = [module for module in model.modules() if parametrize.is_parametrized(module, "weight")]
    for side in sides:
        parametrize.remove_parametrizations(side, "weight", leave_parametrized=True)
