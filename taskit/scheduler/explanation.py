"""Why every location got its rank or none: what it adds in bytes, and what those bytes earn beside the price."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from taskit.memory.profile import MemoryProfile
from taskit.scheduler.constraints import ANY, Candidate, Constraints
from taskit.scheduler.gain import rank_gain
from taskit.scheduler.problem import limits_of
from taskit.scheduler.search import Schedule, frontier
from taskit.scheduler.storages import coverage

NEIGHBOURHOOD = 1 / 8  # of the plan's bytes above the frozen base: how far to either side the price is measured


@dataclass(frozen=True, slots=True)
class LocationReason:
    """Why one location got its rank.

    Args:
        marginal_bytes: what its rank adds to the plan; without one, what its best buy would add. 0 where it is barred
            or worth nothing.
        gain_per_byte: objective per marginal byte, to be compared with the price.
        reason: one sentence.
    """

    name: str
    importance: float
    rank: int
    marginal_bytes: int
    gain_per_byte: float
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why every location got its rank or none; `price` is what a byte earns at the optimum, in objective per byte."""

    price: float
    locations: tuple[LocationReason, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Explanation":
        return cls(values["price"], tuple(LocationReason(**one) for one in values["locations"]))


def explain(
    profile: MemoryProfile,
    importance: Sequence[float],
    ranks: Sequence[int],
    *,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
    rank_parameters: Sequence[int] | None = None,
    rank_limits: Sequence[int] | None = None,
) -> Explanation:
    """Explain the strategy `ranks` that `schedule` found with the same arguments."""
    solve = partial(
        frontier,
        profile,
        importance,
        constraints=constraints,
        gain=gain,
        rank_parameters=rank_parameters,
        rank_limits=rank_limits,
    )
    limits = limits_of(profile, constraints, rank_limits)
    price = _price(profile, ranks, constraints, limits, solve)
    h = {r: rank_gain(r, constraints.ranks[-1], gain) for r in (0, *constraints.ranks)}
    sole = sole_bytes(profile, ranks)
    common = (max(ranks),) if constraints.common_rank and any(ranks) else constraints.ranks
    weights = rank_parameters or [0] * len(ranks)
    used = sum(rank * weight for rank, weight in zip(ranks, weights, strict=True))
    spare = math.inf if constraints.max_parameters is None else constraints.max_parameters - used
    found = []
    for k, one in enumerate(constraints.candidates(profile.locations, profile.blocks)):
        choices = [r for r in common if r <= limits[k]]
        choice = _Choice(
            candidate=one,
            rank=ranks[k],
            bytes={0: 0} | {r: sole[k] + profile.fixed_bytes[k] + r * profile.rank_bytes[k] for r in choices},
            value={r: importance[k] * h[r] for r in (0, *choices)},
            price=price,
            beyond={r for r in choices if (r - ranks[k]) * weights[k] > spare},
            common=constraints.common_rank,
        )
        found.append(choice.reason(profile.locations[k], importance[k]))
    return Explanation(price, tuple(found))


def _price(
    profile: MemoryProfile,
    ranks: Sequence[int],
    constraints: Constraints,
    limits: Sequence[int],
    solve: Callable[[Sequence[int]], Sequence[Schedule]],
) -> float:
    """Slope of the frontier around the plan, in objective per byte; 0 where more memory would earn nothing.

    Where nothing is inserted, what the first bytes would earn.
    """
    size, base = profile.bytes(ranks), profile.bytes([0] * len(ranks))
    if size == base:
        (empty,) = solve((base,))
        (first,) = solve((base + empty.shortfall_bytes,))
        return first.objective / max(1, empty.shortfall_bytes)
    found = constraints.candidates(profile.locations, profile.blocks)
    least = profile.bytes(constraints.least_ranks(profile.locations, profile.blocks))
    most = profile.bytes([0 if one.barred else limit for one, limit in zip(found, limits, strict=True)])
    step = max(1, int((size - base) * NEIGHBOURHOOD))
    low, high = max(least, size - step), size + step
    less, here, more, all_of_it = (plan.objective for plan in solve((low, size, high, max(most, high))))
    return 0.0 if all_of_it <= here * (1 + 1e-9) else (more - less) / (high - low)


def sole_bytes(profile: MemoryProfile, ranks: Sequence[int]) -> list[int]:
    """Bytes of the storages that only this location needs: of an inserted one now, of any other once it is."""
    needs, sizes = coverage(profile)
    inserted = np.array(ranks) > 0
    others = needs[inserted].sum(axis=0) - (needs & inserted[:, None])
    return ((needs & (others == 0)) @ sizes).tolist()


@dataclass(frozen=True, slots=True)
class _Choice:
    """One location as it is in the plan: marginal bytes and value of every rank, 0 included."""

    candidate: Candidate
    rank: int
    bytes: dict[int, int]
    value: dict[int, float]
    price: float
    beyond: set[int]  # ranks that train too many parameters
    common: bool

    def reason(self, name: str, importance: float) -> LocationReason:
        best = self.rank or (0 if self.candidate.barred else self.best_buy)
        earned = self.value[best] / max(1, self.bytes[best])
        return LocationReason(name, importance, self.rank, self.bytes[best], earned, self.sentence())

    @property
    def best_buy(self) -> int:
        """The rank that earns most per byte, 0 if none earns anything."""
        return max(self.value, key=lambda r: (self.value[r] / max(1, self.bytes[r]), -r))

    def times(self, low: int, high: int) -> float:
        """What the step between two ranks earns, in multiples of the price of memory."""
        earned = (self.value[high] - self.value[low]) / max(1, self.bytes[high] - self.bytes[low])
        return earned / self.price if self.price else math.inf

    def sentence(self) -> str:
        if self.candidate.barred:
            return f"No LoRA, because {self.candidate.barred}."
        if not self.rank:
            return self._left_out()
        rank = f"Rank {self.rank}"
        if self.candidate.forced_by:
            rank = f"Forced in by {self.candidate.forced_by}, rank {self.rank}"
        lower = [r for r in self.value if r < self.rank]
        higher = [r for r in self.value if r > self.rank]
        if self.common:
            return f"{rank}, the one rank of all: it earns {_amount(self.times(0, self.rank))}."
        worth = _amount(min(self.times(r, self.rank) for r in lower))
        if not higher:
            return f"{rank}, the largest allowed: its last step earns {worth}."
        best = max(higher, key=lambda r: self.times(self.rank, r))
        return f"{rank}: its last step earns {worth}; rank {best} {self._refusal(self.times(self.rank, best), best)}."

    def _left_out(self) -> str:
        best = self.best_buy
        if len(self.value) == 1:
            return "No LoRA: its matrix is too small for the one rank of all."
        if not best:
            return "No LoRA, because its importance is 0."
        if self.common:
            return f"No LoRA: at rank {best} it {self._refusal(self.times(0, best), best)}."
        return f"No LoRA: rank {best}, its best buy, {self._refusal(self.times(0, best), best)}."

    def _refusal(self, times: float, rank: int) -> str:
        would = f"would earn {_amount(times)}"
        if rank in self.beyond:
            return f"{would}, but trains more parameters than allowed"
        return would if times < 1 else f"{would}, but does not fit"


def _amount(times: float) -> str:
    return "more than memory, which is not scarce" if times == math.inf else f"{times:.2f} × the price"
