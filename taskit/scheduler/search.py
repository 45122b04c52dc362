"""The scheduler: maximise sum_k h(r_k) * lambda_k subject to M(s) <= M_B (TaskIT, §1.1 step 7 of methods.md).

Algorithm 1 as printed overspends its budget; this is the same problem solved over the exact union of activations.
Small problems are solved exactly with Pareto lists, the others with bins fine enough that nothing visible is lost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from taskit.errors import BudgetError, PlanError
from taskit.memory.profile import MemoryProfile
from taskit.scheduler.bins import binned_plans
from taskit.scheduler.gain import RANKS, rank_gain
from taskit.scheduler.leftover import spend_leftover
from taskit.scheduler.pareto import pareto_plans
from taskit.scheduler.trellis import MAX_STATES, Option, build_trellis, coverage

EXACT_LOCATIONS = 24  # up to here Pareto lists are tried before the bins
BINS = 20_000  # U; the paper's 500 lose 5 to 14 % of the objective


@dataclass(frozen=True, slots=True)
class Schedule:
    """A strategy s: one rank per location (0 = not inserted), its objective and M(s) in bytes."""

    ranks: tuple[int, ...]
    objective: float
    predicted_bytes: int


def schedule(
    profile: MemoryProfile,
    importance: Sequence[float],
    budget_bytes: int,
    *,
    ranks: Sequence[int] = RANKS,
    gain: str = "sqrt_ln1p",
    bins: int = BINS,
) -> Schedule:
    """Return the most valuable strategy whose predicted peak is at most `budget_bytes`.

    Args:
        profile: bytes of every strategy over |K| locations.
        importance: lambda of shape (|K|,); only ratios matter, and a location with 0 is never inserted.
        budget_bytes: M_B, the whole peak: frozen base, modules, activations and transients.
        ranks: the ranks that an inserted location may get.
        gain: the form of h, see `rank_gain`.
        bins: U, the resolution over the bytes between no update and the largest strategy.

    Raises:
        PlanError: importance or ranks make no sense for this profile.
        BudgetError: the budget is below what the frozen base needs.

    >>> profile = MemoryProfile(("q",), (0,), 100, (10,), (0,), (), 0)
    >>> schedule(profile, [1.0], 150).ranks
    (4,)
    """
    return frontier(profile, importance, (budget_bytes,), ranks=ranks, gain=gain, bins=bins)[0]


def frontier(
    profile: MemoryProfile,
    importance: Sequence[float],
    budgets: Sequence[int],
    *,
    ranks: Sequence[int] = RANKS,
    gain: str = "sqrt_ln1p",
    bins: int = BINS,
) -> tuple[Schedule, ...]:
    """Return `schedule` at every one of `budgets` (bytes), from one table; arguments and errors are the same."""
    _check_importance(profile, importance)
    ranks = _checked_ranks(ranks)
    base_bytes = profile.bytes([0] * len(profile.locations))
    for budget in budgets:
        _check_budget(budget, base_bytes)
    h = {r: rank_gain(r, ranks[-1], gain) for r in (0, *ranks)}
    chosen = _best_ranks(profile, importance, [b - base_bytes for b in budgets], h, bins) if budgets else []
    return tuple(
        Schedule(tuple(plan), math.fsum(h[r] * v for r, v in zip(plan, importance, strict=True)), profile.bytes(plan))
        for plan in chosen
    )


def cheapest_insertion(profile: MemoryProfile, ranks: Sequence[int] = RANKS) -> int:
    """Return the smallest budget in bytes that admits any insertion: one location at the lowest rank."""
    lowest = _checked_ranks(ranks)[0]
    needs, sizes = coverage(profile)
    own = np.array(profile.fixed_bytes) + lowest * np.array(profile.rank_bytes)
    return profile.bytes([0] * len(profile.locations)) + int((own + needs @ sizes).min())


def _best_ranks(
    profile: MemoryProfile, importance: Sequence[float], rooms: Sequence[int], h: dict[int, float], bins: int
) -> list[list[int]]:
    """Return one list of |K| ranks per room (budget bytes above the frozen base)."""
    useful = np.flatnonzero(np.asarray(importance))
    options = _options(profile, importance, useful, h)
    needs, sizes = coverage(profile)
    needs = needs[useful]
    trellis = build_trellis(needs, sizes, options)
    plans = pareto_plans(trellis, rooms) if len(useful) <= EXACT_LOCATIONS else None
    if plans is None:
        span = sum(choices[-1].bytes for choices in options) + int(sizes[needs.any(axis=0)].sum())
        plans = binned_plans(trellis, rooms, span, bins)
    if not trellis.exact:
        plans = [spend_leftover(plan, room, needs, sizes, options) for plan, room in zip(plans, rooms, strict=True)]
    whole = np.zeros((len(plans), len(profile.locations)), np.int64)
    whole[:, useful] = plans
    return whole.tolist()


def _options(
    profile: MemoryProfile, importance: Sequence[float], useful: np.ndarray, h: dict[int, float]
) -> list[list[Option]]:
    """Return the ranks worth considering at each useful location, by rising bytes and strictly rising gain."""
    largest = max(importance)
    quantum = _gain_quantum(len(useful), len(h))
    options = []
    for k in useful.tolist():
        choices = [Option(0, 0, 0)]
        for rank, value in h.items():
            quanta = round(value * (importance[k] / largest) / quantum)
            if quanta > choices[-1].gain:
                choices.append(Option(rank, profile.fixed_bytes[k] + rank * profile.rank_bytes[k], quanta))
        options.append(choices[1:])
    return options


def _gain_quantum(locations: int, choices: int) -> float:
    """Return the unit in which values are counted, relative to the largest importance.

    Whole numbers make sums associative, so equal strategies tie exactly and scaling all importances changes nothing.
    Their sum, shifted by the width of an edge's number, has to stay below 2^62 (bins.py); this leaves a factor of 2.
    """
    return 2.0 ** -min(40, 60 - (locations * MAX_STATES * choices).bit_length())


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


def _checked_ranks(ranks: Sequence[int]) -> list[int]:
    if not ranks:
        raise PlanError(f"The rank set is empty; give at least one rank, for example {RANKS}.")
    if min(ranks) < 1:
        raise PlanError(f"The rank set holds {min(ranks)}; give ranks of 1 or more (0, no insertion, is implied).")
    return sorted(set(ranks))


def _check_budget(budget: int, base_bytes: int) -> None:
    if budget < base_bytes:
        raise BudgetError(
            f"The budget of {_readable(budget)} is {base_bytes - budget} bytes short of the {_readable(base_bytes)} "
            "that the frozen base needs before anything is inserted; raise the budget or lower the batch size."
        )


def _readable(count: int) -> str:
    """Write bytes for people: exact, with GiB or MiB beside it."""
    size = f"{count / 2**30:.2f} GiB" if abs(count) >= 2**30 else f"{count / 2**20:.2f} MiB"
    return f"{count} bytes ({size})"
