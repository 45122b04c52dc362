"""The scheduler's problem as arrays, built from profile, importance and constraints.

Input that makes no sense raises an error whose message is one sentence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskit.errors import BudgetError, PlanError
from taskit.memory.profile import MemoryProfile
from taskit.scheduler.constraints import Candidate, Constraints
from taskit.scheduler.gain import rank_gain
from taskit.scheduler.storages import BlockChoice, block_choices, storages_of
from taskit.terminal import show_bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """The scheduler's problem over the locations that may be inserted, in forward order.

    A plan lists one rank per location, then 0 (kept) or 1 (recomputed) for each of `blocks`.

    Args:
        locations: their indices in the profile, shape (locations,).
        forced: which of them have to be inserted, bool (locations,).
        needs: who needs which storage, bool (locations, storages).
        sizes: bytes of the storages, int64 (storages,).
        home: the block that decides whether a storage is kept, -1 where none does, int (storages,).
        inputs: storages that are kept if that block is recomputed, the others if it is not, bool (storages,).
        ranks: R, rising, shape (ranks,).
        bytes: what each rank takes beside the storages, int64 (locations, ranks).
        spared: the part of `bytes` that is not kept where the location's block is recomputed.
        parameters: the same for trained parameters.
        admitted: which ranks a location may get, bool (locations, ranks).
        values: h(r) * lambda relative to the largest lambda, float64 (locations, ranks); 0 where not admitted.
        max_parameters: bound of their sum, or None.
        blocks: those that may be recomputed, in forward order.
    """

    locations: np.ndarray
    forced: np.ndarray
    needs: np.ndarray
    sizes: np.ndarray
    home: np.ndarray
    inputs: np.ndarray
    ranks: np.ndarray
    bytes: np.ndarray
    spared: np.ndarray
    parameters: np.ndarray
    admitted: np.ndarray
    values: np.ndarray
    max_parameters: int | None
    blocks: tuple[BlockChoice, ...]

    @property
    def least_plan(self) -> list[int]:
        """The lowest rank where insertion is forced, nothing elsewhere, in the fewest bytes."""
        return self.in_fewest_bytes(np.where(self.forced, self.ranks[0], 0).tolist())

    @property
    def cheapest_insertion(self) -> list[int]:
        """The smallest plan that inserts anything of worth: one location, unless some are forced in."""
        if self.forced.any():
            return self.least_plan
        rank = (self.values > 0).argmax(axis=1)  # the lowest of worth
        rows = np.arange(len(rank))
        stored = self.needs * self.sizes.astype(float)
        price = self.bytes[rows, rank] + stored[:, self.home < 0].sum(axis=1)
        of_block = self.home[:, None] == np.arange(len(self.blocks))
        kept, recomputed = stored @ (of_block & ~self.inputs[:, None]), stored @ (of_block & self.inputs[:, None])
        for b, block in enumerate(self.blocks):
            spared = self.spared[rows, rank] * ((rows >= block.first) & (rows < block.end))
            price += np.minimum(kept[:, b], recomputed[:, b] - spared)
        price[~self.values.any(axis=1)] = math.inf
        if self.max_parameters is not None:
            price[self.parameters[rows, rank] > self.max_parameters] = math.inf
        k = int(price.argmin())
        return self.in_fewest_bytes([int(self.ranks[rank[k]]) if i == k else 0 for i in range(len(price))])

    @property
    def span_bytes(self) -> int:
        """Bytes of the largest rank everywhere, above the empty strategy, with nothing recomputed."""
        largest = (self.bytes * self.admitted).max(axis=1).sum()
        return int(largest + self.sizes[self.needs.any(axis=0) & ~self.inputs].sum())

    def in_fewest_bytes(self, ranks: Sequence[int]) -> list[int]:
        """Return the plan of these ranks where every block is recomputed that takes fewer bytes so."""
        if not self.blocks:
            return list(ranks)
        saved = np.zeros(len(self.blocks), np.int64)
        rows, columns = self.inserted(ranks)
        read = self.needs[rows].any(axis=0) & (self.home >= 0)
        np.add.at(saved, self.home[read], np.where(self.inputs, -self.sizes, self.sizes)[read])
        spared = np.zeros(len(self.locations), np.int64)
        spared[rows] = self.spared[rows, columns]
        saved += [spared[block.first : block.end].sum() for block in self.blocks]
        return [*ranks, *(saved > 0).astype(int).tolist()]

    def kept_by(self, plan: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Which storages a plan keeps if they are needed, and which locations lie in a block that it recomputes."""
        inside = np.zeros(len(self.locations), bool)
        if not self.blocks:
            return np.ones(len(self.sizes), bool), inside
        recomputed = np.array(plan[len(self.locations) :], bool)
        for block, bit in zip(self.blocks, recomputed.tolist(), strict=True):
            inside[block.first : block.end] |= bit
        return (self.home < 0) | (self.inputs == recomputed[self.home]), inside

    def bytes_of(self, plan: Sequence[int]) -> int:
        """Bytes of a plan above the empty strategy, over the exact union."""
        rows, columns = self.inserted(plan)
        kept, inside = self.kept_by(plan)
        own_bytes = self.bytes[rows, columns] - inside[rows] * self.spared[rows, columns]
        return int(own_bytes.sum() + self.sizes[self.needs[rows].any(axis=0) & kept].sum())

    def value_of(self, plan: Sequence[int]) -> float:
        """Value of a plan, relative to the largest importance, with what its kept blocks are worth."""
        kept = (b.keep_value for b, bit in zip(self.blocks, plan[len(self.locations) :], strict=True) if not bit)
        return math.fsum([*self.values[self.inserted(plan)].tolist(), *kept])

    def parameters_of(self, plan: Sequence[int]) -> int:
        """Parameters that a plan trains."""
        return int(self.parameters[self.inserted(plan)].sum())

    def inserted(self, plan: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the locations that a plan inserts, and of their ranks."""
        chosen = np.array(plan[: len(self.locations)])
        rows = np.flatnonzero(chosen)
        return rows, np.searchsorted(self.ranks, chosen[rows])


def build_problem(
    profile: MemoryProfile,
    importance: Sequence[float],
    constraints: Constraints,
    gain: str,
    rank_parameters: Sequence[int] | None,
    rank_limits: Sequence[int] | None = None,
    block_times: Sequence[float] = (),
    time_price: float = 0.0,
) -> Problem:
    """Return the problem over the locations that may be inserted and are worth it, or have to be; see `schedule`.

    With `block_times`, what recomputing each of `profile.recomputable` adds to the time of the step, they may be
    recomputed at `time_price` per unit of time, in shares of the largest objective. Without, all are kept.
    """
    _check_importance(profile, importance)
    found = constraints.candidates(profile.locations, profile.blocks)
    locations = np.array(
        [k for k, one in enumerate(found) if one.forced_by or (importance[k] and not one.barred)], int
    )
    worth = np.array(importance, np.float64)[locations]
    if not worth.any():
        raise PlanError("Every location that the constraints admit has importance 0; admit others.")
    ranks = np.array(constraints.ranks)
    h = np.array([rank_gain(r, constraints.ranks[-1], gain) for r in constraints.ranks])
    fixed_bytes, rank_bytes = np.array(profile.fixed_bytes)[locations], np.array(profile.rank_bytes)[locations]
    own_bytes = fixed_bytes[:, None] + np.outer(rank_bytes, ranks)
    admitted = ranks <= np.array(limits_of(profile, constraints, rank_limits))[locations, None]
    values = np.outer(worth / worth.max(), h) * admitted
    prices = [time_price * time * float(values.max(axis=1).sum()) for time in block_times]
    blocks = block_choices(profile, locations, block_times, prices)
    needs, sizes, home, inputs = storages_of(profile, locations, blocks)
    problem = Problem(
        locations=locations,
        forced=np.array([bool(found[k].forced_by) for k in locations.tolist()]),
        needs=needs,
        sizes=sizes,
        home=home,
        inputs=inputs,
        ranks=ranks,
        bytes=own_bytes.astype(np.int64),
        spared=np.outer(np.array(profile.kept_rank_bytes, np.int64)[locations], ranks),
        parameters=_parameters(profile, constraints, rank_parameters, locations),
        admitted=admitted,
        values=values,
        max_parameters=constraints.max_parameters,
        blocks=blocks,
    )
    if not problem.values.any():
        raise PlanError(f"The rank gain {gain!r} gives rank 1 nothing, so no LoRA is worth it; allow higher ranks.")
    _check_parameters(problem, found)
    return problem


def limits_of(profile: MemoryProfile, constraints: Constraints, rank_limits: Sequence[int] | None) -> list[int]:
    """Return the largest rank that each location may get; the smallest of R always may be."""
    if rank_limits is None:
        return [constraints.ranks[-1]] * len(profile.locations)
    if len(rank_limits) != len(profile.locations):
        raise PlanError(
            f"There are {len(rank_limits)} rank limits for {len(profile.locations)} locations; give one for each."
        )
    return [max(r for r in constraints.ranks if r <= max(limit, constraints.ranks[0])) for limit in rank_limits]


def check_budget(profile: MemoryProfile, constraints: Constraints, budget: int) -> None:
    """Raise BudgetError where not even the frozen base and the locations forced in fit."""
    least = constraints.least_ranks(profile.locations, profile.blocks)
    check_floor(profile.bytes(least), any(least), budget)


def check_floor(needed: int, forced: bool, budget: int) -> None:
    """Raise BudgetError where `budget` is below the bytes that are needed before anything is chosen."""
    if budget < needed:
        what = "frozen base and the locations forced in need" if forced else "frozen base needs"
        raise BudgetError(
            f"The budget of {budget} bytes ({show_bytes(budget)}) is {needed - budget} bytes short of the "
            f"{needed} bytes ({show_bytes(needed)}) that the {what} before anything else is inserted; raise the "
            "budget or lower the batch size."
        )


def _parameters(
    profile: MemoryProfile, constraints: Constraints, rank_parameters: Sequence[int] | None, locations: np.ndarray
) -> np.ndarray:
    """Trained parameters of each rank at each location; all 0 without a bound on them."""
    if constraints.max_parameters is None:
        return np.zeros((len(locations), len(constraints.ranks)), np.int64)
    if rank_parameters is None or len(rank_parameters) != len(profile.locations):
        raise PlanError(
            "A bound on trained parameters needs rank_parameters, one number for each location; give them."
        )
    return np.outer(np.array(rank_parameters, np.int64)[locations], constraints.ranks)


def _check_importance(profile: MemoryProfile, importance: Sequence[float]) -> None:
    if len(importance) != len(profile.locations):
        raise PlanError(
            f"There are {len(importance)} importances for the {len(profile.locations)} locations of the memory "
            "profile; compute both for the same backbone."
        )
    for name, value in zip(profile.locations, importance, strict=True):
        if not 0 <= value < math.inf:
            raise PlanError(f"The importance of {name} is {value}; give a finite number of 0 or more.")
    if not any(importance):
        raise PlanError("Every importance is 0, so no location is worth a LoRA; use uniform importance instead.")


def _check_parameters(problem: Problem, found: Sequence[Candidate]) -> None:
    limit = problem.max_parameters
    if limit is None:
        return
    least = int(problem.parameters[:, 0].min())
    forced = int(problem.parameters[problem.forced, 0].sum())
    if least > limit:
        raise PlanError(f"{limit} trained parameters admit no LoRA; give at least {least}, or a lower rank.")
    if forced > limit:
        names = sorted({one.forced_by for one in found if one.forced_by})
        raise PlanError(
            f"The locations forced in by {', '.join(names)} train {forced} parameters at the lowest rank, more than "
            f"the {limit} allowed; force in fewer or allow more."
        )
