"""π-Tuning (ICML 2023): the new task's LoRA is interpolated with those of similar learned tasks, and both learn.

Our readings: the data of a learned task is not shipped with its adapter, so that the Fisher embedding
of an expert is taken on data of the new task, see experts.py; experts have the target's shape, so that
one of a higher rank is truncated to it; a location where an expert has no LoRA gets its part from the others alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from taskit.errors import PlanError
from taskit.methods.method import (
    MethodContext,
    Option,
    Options,
    ResolvedMethod,
    at_least,
    chosen_by,
    one_of,
    the_same,
)
from taskit.step.parametrization import Parametrization, Ranks

K = 2  # experts beside the target, as in the paper
ATTENTION = frozenset({"q", "k", "v", "qkv", "o"})


@dataclass(frozen=True, slots=True)
class PiTuning:
    """π-Tuning over the ranks of the target's LoRA: one everywhere, or chosen by importance."""

    name: str
    by_importance: bool = False
    options: Mapping[str, Option] = field(
        default_factory=lambda: {
            "experts": at_least(K, 1),
            "select": one_of("fisher", "similarity"),
            "rule": one_of("update", "parameters"),
            "train": one_of("all", "weights"),
            "alpha": one_of("layer", "global"),
            "collapse_rank": at_least(0, 0),
        }
    )

    @property
    def explanation(self) -> str:
        return (
            "π-Tuning starts from what similar tasks have learned: the new LoRA is mixed with the "
            f"{self.options['experts'].default} most similar adapters of the zoo, each layer learns how much of "
            "each it wants, and the mixture is folded into one plain LoRA. It helps most with few training rows, "
            "and takes the memory of all adapters in the mixture."
            + (" Here TaskIT chooses where the new LoRA goes." if self.by_importance else "")
        )

    def resolve(self, context: MethodContext, given: Options) -> ResolvedMethod:
        """Choose the experts; raises PlanError where the zoo has none."""
        from taskit.methods.experts import rank_experts

        if not context.similarity:
            raise PlanError(
                f"The method {self.name} mixes learned tasks, but the zoo has none for this backbone; name another "
                "--zoo, or choose --method taskit."
            )
        ranked = rank_experts(context, given["select"])
        experts = [
            {
                "adapter": expert.adapter,
                "revision": expert.revision,
                "likeness": round(expert.likeness, 6),
                "ranks": dict(expert.ranks),
            }
            for expert in ranked[: given["experts"]]
        ]
        groups = {place.name: _group(place.block, place.role, given["alpha"]) for place in context.places}
        chosen = {**given, "experts": experts, "zoo": context.zoo_source, "groups": groups}
        return ResolvedMethod(**chosen_by(self.by_importance), options=partial(the_same, chosen))

    def parametrization(self, options: Options) -> Parametrization:
        from taskit.methods.interpolated import Interpolated

        experts = options["experts"]
        return Interpolated(
            experts=tuple(_checked(expert["ranks"]) for expert in experts),
            adapters=tuple((expert["adapter"], expert["revision"]) for expert in experts),
            zoo=options["zoo"],
            groups=dict(options["groups"]),
            rule=options["rule"],
            train=options["train"],
            collapse_rank=options["collapse_rank"],
        )


def _group(block: int, role: str, alpha: str) -> str:
    """Locations of one group share their softmax weights: those of one attention or one MLP, or all."""
    if alpha == "global":
        return alpha
    return f"{block}.attention" if role.removeprefix("cross_") in ATTENTION else f"{block}.mlp"


def _checked(ranks: Mapping[str, Any]) -> Ranks:
    if any(type(rank) is not int or rank < 1 for rank in ranks.values()):
        raise PlanError("An expert in the method_options of the plan has a rank below 1; run taskit plan again.")
    return dict(ranks)
