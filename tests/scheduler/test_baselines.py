"""The baselines of the benchmark: what they return fits, and none beats the scheduler."""

from importlib import import_module

import numpy as np
import pytest

from benchmarks.schedulers import BASELINES, run
from benchmarks.schedulers.milp import milp
from taskit.scheduler import Constraints, schedule
from tests.profiles import hand_profile, llama_profile, sequential_profile
from tests.reference import all_strategies, union_bytes


@pytest.fixture(scope="module")
def problem():
    profile = llama_profile(3)
    n = len(profile.locations)
    low, high = profile.bytes([0] * n), profile.bytes([8] * n)
    return profile, np.random.default_rng(0).gamma(1.5, 1.0, n).tolist(), low + (high - low) * 3 // 5


@pytest.mark.parametrize("name", [name for name in BASELINES if not name.startswith("evolutionary")])
def test_fits_and_is_never_better(problem, name):
    profile, importance, budget = problem
    plan = run(BASELINES[name], profile, importance, budget)
    assert union_bytes(profile, plan.ranks) == plan.predicted_bytes <= budget
    assert 0 < plan.objective <= schedule(profile, importance, budget).objective * (1 + 1e-9)


def test_evolution_fits_too(problem, monkeypatch):
    monkeypatch.setattr(import_module("benchmarks.schedulers.evolutionary"), "GENERATIONS", 20)
    profile, importance, budget = problem
    plan = run(BASELINES["evolutionary (scipy)"], profile, importance, budget)
    assert union_bytes(profile, plan.ranks) <= budget
    assert 0 < plan.objective <= schedule(profile, importance, budget).objective


def test_algorithm_1_is_the_same_in_loops_and_in_arrays(problem):
    profile, importance, budget = problem
    arrays, loops = (run(choose, profile, importance, budget) for choose in list(BASELINES.values())[:2])
    assert arrays == loops


def test_repaired_algorithm_1_keeps_the_budget_that_the_printed_one_breaks():
    """At 5 the printed formula returns {1, 2}, which takes 12."""
    algorithm1 = BASELINES["Algorithm 1, repaired, U = 500"]
    plans = [run(algorithm1, hand_profile(), (1.0, 0.6), b, constraints=Constraints((1,))) for b in (4, 5, 10, 13)]
    assert [plan.ranks for plan in plans] == [(0, 1), (0, 1), (1, 0), (1, 1)]


def test_the_mixed_integer_program_equals_exhaustive_search():
    for seed in range(10):
        rng = np.random.default_rng([seed, 31])
        profile = sequential_profile(rng, blocks=2)
        importance = rng.gamma(1.5, 1.0, len(profile.locations)).tolist()
        strategies = sorted(all_strategies(profile, importance, (1, 4)))
        budget = strategies[len(strategies) // 2][0]
        best = max(value for size, value, _ in strategies if size <= budget)
        found = milp(profile, importance, budget, constraints=Constraints((1, 4)))
        assert union_bytes(profile, found.ranks) <= budget
        assert best * (1 - 2e-4) <= found.objective <= best * (1 + 1e-6)
