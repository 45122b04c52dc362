"""The scheduler's problem as arrays, built from profile, importance and constraints.

Input that makes no sense raises an error whose message is one sentence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from taskit.errors import BudgetError, PlanError
from taskit.memory.profile import MemoryProfile
from taskit.scheduler.constraints import Candidate, Constraints
from taskit.scheduler.gain import rank_gain
from taskit.terminal import show_bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """The scheduler's problem over the locations that may be inserted, in forward order.

    Args:
        locations: their indices in the profile, shape (locations,).
        forced: which of them have to be inserted, bool (locations,).
        needs: who needs which storage, bool (locations, storages).
        sizes: bytes of the storages, int64 (storages,).
        ranks: R, rising, shape (ranks,).
        bytes: what each rank takes beside the storages, int64 (locations, ranks).
        parameters: the same for trained parameters.
        values: h(r) * lambda relative to the largest lambda, float64 (locations, ranks).
        max_parameters: bound of their sum, or None.
    """

    locations: np.ndarray
    forced: np.ndarray
    needs: np.ndarray
    sizes: np.ndarray
    ranks: np.ndarray
    bytes: np.ndarray
    parameters: np.ndarray
    values: np.ndarray
    max_parameters: int | None

    @property
    def least_ranks(self) -> list[int]:
        """The lowest rank where insertion is forced, nothing elsewhere."""
        return np.where(self.forced, self.ranks[0], 0).tolist()

    @property
    def cheapest_insertion(self) -> list[int]:
        """The smallest ranks that insert anything of worth: one location, unless some are forced in."""
        if self.forced.any():
            return self.least_ranks
        fewest = np.where(self.values > 0, self.bytes, np.iinfo(np.int64).max // 2)
        price = fewest.min(axis=1) + self.needs @ self.sizes
        if self.max_parameters is not None:
            price[self.parameters[:, 0] > self.max_parameters] = np.iinfo(np.int64).max
        k = int(price.argmin())
        return [int(self.ranks[fewest[k].argmin()]) if i == k else 0 for i in range(len(price))]

    @property
    def span_bytes(self) -> int:
        """Bytes of the largest rank everywhere, above the empty strategy."""
        return int(self.bytes[:, -1].sum() + self.sizes[self.needs.any(axis=0)].sum())

    def bytes_of(self, ranks: Sequence[int]) -> int:
        """Bytes of one rank per location above the empty strategy, over the exact union."""
        chosen = np.array(ranks)
        rows = np.flatnonzero(chosen)
        own_bytes = self.bytes[rows, np.searchsorted(self.ranks, chosen[rows])].sum()
        return int(own_bytes + self.sizes[self.needs[rows].any(axis=0)].sum())

    def value_of(self, ranks: Sequence[int]) -> float:
        """Value of one rank per location, relative to the largest importance."""
        chosen = np.array(ranks)
        rows = np.flatnonzero(chosen)
        return math.fsum(self.values[rows, np.searchsorted(self.ranks, chosen[rows])].tolist())

    def parameters_of(self, ranks: Sequence[int]) -> int:
        """Parameters that one rank per location trains."""
        chosen = np.array(ranks)
        rows = np.flatnonzero(chosen)
        return int(self.parameters[rows, np.searchsorted(self.ranks, chosen[rows])].sum())


def build_problem(
    profile: MemoryProfile,
    importance: Sequence[float],
    constraints: Constraints,
    gain: str,
    rank_parameters: Sequence[int] | None,
) -> Problem:
    """Return the problem over the locations that may be inserted and are worth it, or have to be; see `schedule`."""
    _check_importance(profile, importance)
    found = constraints.candidates(profile.locations, profile.blocks)
    locations = np.array(
        [k for k, one in enumerate(found) if one.forced_by or (importance[k] and not one.barred)], int
    )
    worth = np.array(importance, np.float64)[locations]
    if not worth.any():
        raise PlanError("Every location that the constraints admit has importance 0; admit others.")
    ranks = np.array(constraints.ranks)
    needs, sizes = coverage(profile)
    h = np.array([rank_gain(r, constraints.ranks[-1], gain) for r in constraints.ranks])
    fixed_bytes, rank_bytes = np.array(profile.fixed_bytes)[locations], np.array(profile.rank_bytes)[locations]
    problem = Problem(
        locations=locations,
        forced=np.array([bool(found[k].forced_by) for k in locations.tolist()]),
        needs=needs[locations],
        sizes=sizes,
        ranks=ranks,
        bytes=(fixed_bytes[:, None] + np.outer(rank_bytes, ranks)).astype(np.int64),
        parameters=_parameters(profile, constraints, rank_parameters, locations),
        values=np.outer(worth / worth.max(), h),
        max_parameters=constraints.max_parameters,
    )
    if not problem.values.any():
        raise PlanError(f"The rank gain {gain!r} gives rank 1 nothing, so no LoRA is worth it; allow higher ranks.")
    _check_parameters(problem, found)
    return problem


def check_budget(profile: MemoryProfile, constraints: Constraints, budget: int) -> None:
    """Raise BudgetError where not even the frozen base and the locations forced in fit."""
    least = constraints.least_ranks(profile.locations, profile.blocks)
    needed = profile.bytes(least)
    if budget < needed:
        what = "frozen base and the locations forced in need" if any(least) else "frozen base needs"
        raise BudgetError(
            f"The budget of {budget} bytes ({show_bytes(budget)}) is {needed - budget} bytes short of the "
            f"{needed} bytes ({show_bytes(needed)}) that the {what} before anything else is inserted; raise the "
            "budget or lower the batch size."
        )


def coverage(profile: MemoryProfile) -> tuple[np.ndarray, np.ndarray]:
    """Return who needs what, bool of shape (locations, storages), and the storages' bytes, int64."""
    sizes = np.array([storage.bytes for storage in profile.storages], np.int64)
    readers = [len(storage.needed_by) for storage in profile.storages]
    rows = np.fromiter(chain.from_iterable(s.needed_by for s in profile.storages), np.intp, sum(readers))
    needs = np.zeros((len(profile.locations), len(sizes)), bool)
    needs[rows, np.repeat(np.arange(len(sizes)), readers)] = True
    return needs, sizes


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
