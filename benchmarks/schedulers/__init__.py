"""Other schedulers than the product's, all called like `taskit.scheduler.schedule`: baselines and oracles.

`run` gives every one of them the same problem, already cleared of locations that constraints or importance rule out,
and prices what it returns by the exact union, so a baseline cannot look better than it is.
"""

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.schedulers.algorithm1 import algorithm1, algorithm1_loops
from benchmarks.schedulers.evolutionary import evolutionary
from benchmarks.schedulers.greedy import greedy
from benchmarks.schedulers.random_fit import random_fit
from taskit.memory.profile import MemoryProfile
from taskit.scheduler import ANY, Constraints, Schedule, objective
from taskit.scheduler.problem import Problem, build_problem, check_budget

Choose = Callable[[Problem, int], list[int]]  # (problem, bytes above the frozen base) -> one rank per location

BASELINES: dict[str, Choose] = {
    "Algorithm 1, repaired, U = 500": algorithm1,
    "the same in plain loops, as printed": algorithm1_loops,
    "greedy by importance per byte": greedy,
    "evolutionary (scipy)": evolutionary,
    "random that fits": random_fit,
}


def run(
    choose: Choose,
    profile: MemoryProfile,
    importance: Sequence[float],
    budget_bytes: int,
    *,
    constraints: Constraints = ANY,
    gain: str = "sqrt_ln1p",
) -> Schedule:
    """Return what `choose` makes of a problem; arguments and errors as of `taskit.scheduler.schedule`.

    Baselines know a rank set, exclusions and last blocks, but neither forced locations nor bounded parameters.
    """
    check_budget(profile, constraints, budget_bytes)
    problem = build_problem(profile, importance, constraints, gain, None)
    whole = np.zeros(len(profile.locations), np.int64)
    whole[problem.locations] = choose(problem, budget_bytes - profile.bytes([0] * len(whole)))
    ranks = tuple(whole.tolist())
    return Schedule(ranks, objective(ranks, importance, constraints.ranks[-1], gain), profile.bytes(ranks))
