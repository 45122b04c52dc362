"""One adapter out of several, no gradient needed: the two rules by which learned LoRAs are averaged.

    factors   dW = (sum_i w_i s_i B_i)(sum_i w_i A_i)    AdapterSoup (w_i = 1 / l) and LoraHub (w_i sought), rank r
    update    dW = sum_i w_i s_i B_i A_i                 what "average" means for the model, rank l r

The first keeps the rank and carries the cross terms B_i A_j; the second is exact.  Both papers have one scaling s for
all their adapters; where it differs, it goes with B_i, so that one adapter alone is itself.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from taskit.errors import ZooError
from taskit.zoo.lora_branch import Branch

Adapter = Mapping[str, Branch]  # module path -> branch
Rule = Callable[[Sequence[Adapter], Sequence[float]], dict[str, Branch]]


def by_factors(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, Branch]:
    """(sum_i w_i s_i B_i)(sum_i w_i A_i) at every module, scaling 1; of equal ranks, see `require_equal_ranks`."""
    composed = {}
    for module in adapters[0]:
        branches = [adapter[module] for adapter in adapters]
        a = _weighted([one.a for one in branches], weights)
        scaled = [w * one.scaling for w, one in zip(weights, branches, strict=True)]
        b = _weighted([one.b for one in branches], scaled)
        composed[module] = Branch(a, b, 1.0)
    return composed


def by_update(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, Branch]:
    """sum_i w_i s_i B_i A_i at every module that any of them adapts, scaling 1; the ranks add up."""
    composed = {}
    for module in dict.fromkeys(name for adapter in adapters for name in adapter):
        parts = [(w, one[module]) for w, one in zip(weights, adapters, strict=True) if module in one]
        a = torch.cat([one.a for _, one in parts])
        b = torch.cat([w * one.scaling * one.b for w, one in parts], dim=1)
        composed[module] = Branch(a, b, 1.0)
    return composed


RULES: dict[str, Rule] = {"factors": by_factors, "update": by_update}


def composed_ranks(ranks: Sequence[Mapping[str, int]], rule: str) -> dict[str, int]:
    """The rank at each module of what ``rule`` makes of adapters with these ranks by module."""
    if rule == "factors":
        return dict(ranks[0])
    modules = dict.fromkeys(name for one in ranks for name in one)
    return {name: sum(one.get(name, 0) for one in ranks) for name in modules}


def require_equal_ranks(names: Sequence[str], ranks: Sequence[Mapping[str, int]]) -> None:
    """Raises ZooError unless all adapters have the same rank at the same modules: factors of other shapes have no
    sum."""
    for name, one in zip(names, ranks, strict=True):
        odd = next((m for m in {**ranks[0], **one} if one.get(m, 0) != ranks[0].get(m, 0)), None)
        if odd is not None:
            raise ZooError(
                f"The factors of {names[0]} and {name} cannot be added, for their ranks at {odd} are "
                f"{ranks[0].get(odd, 0)} and {one.get(odd, 0)}; give a --zoo of equal ranks, or take --method soup "
                "--method-option rule=update, which takes any."
            )


def _weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total.add_(tensor, alpha=weight)
    return total
