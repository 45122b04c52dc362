"""From profile, importance and constraints to the problem in numbers, or one sentence saying why there is none."""

import math
from collections.abc import Sequence

import numpy as np

from taskit.errors import BudgetError, PlanError
from taskit.memory.profile import MemoryProfile
from taskit.scheduler.constraints import Candidate, Constraints
from taskit.scheduler.gain import rank_gain
from taskit.scheduler.options import Problem, coverage
from taskit.terminal import show_bytes


def pose(
    profile: MemoryProfile,
    importance: Sequence[float],
    constraints: Constraints,
    gain: str,
    rank_parameters: Sequence[int] | None,
) -> Problem:
    """Return the problem over the locations that may be inserted and are worth it, or have to be; see `schedule`."""
    _check_importance(profile, importance)
    found = constraints.candidates(profile.locations, profile.blocks)
    places = np.array([k for k, one in enumerate(found) if one.forced_by or (importance[k] and not one.barred)], int)
    worth = np.array(importance, np.float64)[places]
    if not worth.any():
        raise PlanError("Every location that the constraints admit has importance 0; admit others.")
    ranks, needs_sizes = np.array(constraints.ranks), coverage(profile)
    h = np.array([rank_gain(r, constraints.ranks[-1], gain) for r in constraints.ranks])
    own = np.array(profile.fixed_bytes)[places, None] + np.outer(np.array(profile.rank_bytes)[places], ranks)
    problem = Problem(
        places=places,
        forced=np.array([bool(found[k].forced_by) for k in places.tolist()]),
        needs=needs_sizes[0][places],
        sizes=needs_sizes[1],
        ranks=ranks,
        bytes=own.astype(np.int64),
        parameters=_parameters(profile, constraints, rank_parameters, places),
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


def _parameters(
    profile: MemoryProfile, constraints: Constraints, rank_parameters: Sequence[int] | None, places: np.ndarray
) -> np.ndarray:
    """Trained parameters of each rank at each place; all 0 where nobody asks for them."""
    if constraints.max_parameters is None:
        return np.zeros((len(places), len(constraints.ranks)), np.int64)
    if rank_parameters is None or len(rank_parameters) != len(profile.locations):
        raise PlanError(
            "A bound on trained parameters needs rank_parameters, one number for each location; give them."
        )
    return np.outer(np.array(rank_parameters, np.int64)[places], constraints.ranks)


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
