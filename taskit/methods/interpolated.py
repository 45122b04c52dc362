"""The parametrization of π-Tuning: one LoRA of k+1 experts and of softmax weights that a group of locations shares.

    update      dW_k = sum_i softmax(alpha)_i dW_i    A = [A_0; A_1; ...], B = [s_0 B_0, s_1 B_1, ...]
    parameters  A = sum_i s_i A_i,  B = sum_i s_i B_i       Eq. (4) of π-Tuning, cross terms included

Expert 0 is the target.  Each B_i carries the scaling of its adapter; the LoRA's own is 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from taskit.methods.method import inserted
from taskit.methods.truncation import truncate, truncated
from taskit.step.parametrization import Decisions, Parametrization, Preparation, Ranks, lora_pair, plain_again
from taskit.zoo.lora_branch import Branch


class Mixture(nn.Module):
    """softmax(alpha) of one group, (k+1,); uniform at the start."""

    def __init__(self, count: int, device: torch.device) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(count, device=device))  # float32: a bf16 1.0 would not move

    def forward(self) -> Tensor:
        return self.alpha.softmax(0)

    @torch.no_grad()
    def target_only(self) -> None:
        """All weight on the target, so that the experts neither count nor learn."""
        self.alpha[1:] = -torch.inf

    @torch.no_grad()
    def uniform(self) -> None:
        self.alpha.fill_(1.0)


class ScaledColumns(nn.Module):
    """B (out, sum r_i) with the columns of expert i scaled by s_i."""

    def __init__(self, mixture: Mixture, ranks: Sequence[int]) -> None:
        super().__init__()
        self.mixture, self.ranks = mixture, tuple(ranks)

    def forward(self, b: Tensor) -> Tensor:
        weights = self.mixture().to(b.dtype)
        return b * torch.cat([s.expand(rank) for s, rank in zip(weights, self.ranks, strict=True)])


class Averaged(nn.Module):
    """sum_i s_i M_i of a stack (k+1, rows, columns) of matrices M_i; a new stack holds the target alone."""

    def __init__(self, mixture: Mixture, count: int) -> None:
        super().__init__()
        self.mixture, self.count = mixture, count

    def forward(self, stack: Tensor) -> Tensor:
        return torch.tensordot(self.mixture().to(stack.dtype), stack, 1)

    def right_inverse(self, matrix: Tensor) -> Tensor:
        return torch.cat([matrix[None], matrix.new_zeros(self.count - 1, *matrix.shape)])


@dataclass(frozen=True, slots=True)
class Interpolated(Parametrization):
    """``experts`` are the ranks of each learned adapter, ``adapters`` their names and revisions in ``zoo``.

    ``rule`` is update or parameters; ``train`` is all, or weights for alpha alone once the target has learned.
    With a ``collapse_rank`` above 0 what is shipped has at most that rank.
    """

    experts: tuple[Ranks, ...]
    adapters: tuple[tuple[str, str], ...]
    zoo: str | None
    groups: Mapping[str, str]
    rule: str = "update"
    train: str = "all"
    collapse_rank: int = 0

    def widths(self, ranks: Ranks) -> Ranks:
        if self.rule == "parameters":
            return ranks
        return {name: sum(self._parts(name, rank)) if rank else 0 for name, rank in ranks.items()}

    def copies(self, name: str) -> int:
        return 1 + sum(name in expert for expert in self.experts)

    def insert(self, model: Any, ranks: Ranks) -> None:
        mixtures: dict[str, Mixture] = {}
        for name in inserted(ranks):
            down, up = lora_pair(model, name)
            mixture = mixtures.setdefault(self.groups[name], Mixture(len(self.experts) + 1, up.weight.device))
            if self.rule == "update":
                parts = self._parts(name, ranks[name])
                parametrize.register_parametrization(up, "weight", ScaledColumns(mixture, parts))
            else:
                for side in (down, up):
                    averaged = Averaged(mixture, len(self.experts) + 1)
                    parametrize.register_parametrization(side, "weight", averaged)

    def parameters(self, places: Any, ranks: Ranks) -> int:
        count = len(self.experts) + 1
        weights = count * len({self.groups[name] for name in inserted(ranks)})
        if self.train == "weights":
            return weights
        return weights + (1 if self.rule == "update" else count) * super(Interpolated, self).parameters(places, ranks)

    def prepare(self, preparation: Preparation) -> Decisions:
        """Load the experts; before that, where only the weights are to be trained, let the target learn alone."""
        from taskit.methods.experts import load_experts

        model = preparation.model
        branches = load_experts(preparation.backbone, preparation.data, self.zoo, self.adapters)
        if self.train == "weights":
            for mixture in _mixtures(model):
                mixture.target_only()
                mixture.requires_grad_(False)
            preparation.warm_up(preparation.epochs)
            for mixture in _mixtures(model):
                mixture.uniform()
                mixture.requires_grad_(True)
        for name, rank in preparation.ranks.items():
            if rank:
                self._fill(model, name, rank, [expert.get(name) for expert in branches])
        return {}

    def begin(self, model: Any, decisions: Decisions | None) -> None:  # noqa: ARG002
        if self.train == "weights":
            for name, parameter in model.named_parameters():
                if ".lora_" in name and not name.endswith(".alpha"):
                    parameter.requires_grad_(False)

    def collapse(self, model: Any) -> float:
        plain_again(model)
        return truncate(model, self.collapse_rank) if self.collapse_rank else 0.0

    def _parts(self, name: str, rank: int) -> list[int]:
        """Ranks of the target and of each expert at a location, none above the target's."""
        return [rank, *(min(expert.get(name, 0), rank) for expert in self.experts)]

    @torch.no_grad()
    def _fill(self, model: Any, name: str, rank: int, branches: Sequence[Branch | None]) -> None:
        """Write the experts behind the target's own part."""
        down, up = lora_pair(model, name)
        start = rank
        for i, branch in enumerate(branches, 1):
            if branch is None:
                continue
            part_a, part_b, _ = truncated(branch.a, branch.scaling * branch.b, rank)
            r = len(part_a)
            b = up.parametrizations.weight.original
            if self.rule == "update":
                down.weight[start : start + r], b[:, start : start + r] = part_a.to(b), part_b.to(b)
                start += r
            else:
                a = down.parametrizations.weight.original
                a[i, :r], b[i, :, :r] = part_a.to(a), part_b.to(b)


def _mixtures(model: nn.Module) -> list[Mixture]:
    return [module for module in model.modules() if isinstance(module, Mixture)]
