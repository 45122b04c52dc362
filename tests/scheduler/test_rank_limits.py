"""No location above its limit: against exhaustive search, and in every function that takes limits."""

import itertools

import numpy as np
import pytest

from taskit.errors import PlanError
from taskit.scheduler import RANKS, Constraints, explain, frontier, schedule, schedule_uniform
from tests.profiles import llama_profile, make_profile, sequential_profile
from tests.reference import objective, union_bytes


def admitted(ranks, limit):
    return [rank for rank in ranks if rank <= limit] or [min(ranks)]


@pytest.mark.parametrize("common_rank", [False, True])
def test_equals_exhaustive_search(common_rank):
    ranks = (2, 4, 8)
    for seed in range(30):
        rng = np.random.default_rng([seed, 41])
        profile = sequential_profile(rng, 2)
        n = len(profile.locations)
        importance, limits = rng.gamma(1.5, 1.0, n).tolist(), rng.integers(1, 12, n).tolist()
        plans = [
            (union_bytes(profile, plan), objective(importance, plan, 8))
            for plan in itertools.product(*((0, *admitted(ranks, limit)) for limit in limits))
            if not common_rank or len(set(plan) - {0}) <= 1
        ]
        budgets = sorted(size for size, _ in plans)[:: 1 + len(plans) // 5]
        constraints = Constraints(ranks, common_rank=common_rank)
        found = frontier(profile, importance, budgets, constraints=constraints, rank_limits=limits)
        for budget, plan in zip(budgets, found, strict=True):
            assert all(not r or r in admitted(ranks, limit) for r, limit in zip(plan.ranks, limits, strict=True))
            assert plan.predicted_bytes == union_bytes(profile, plan.ranks) <= budget
            assert plan.objective == pytest.approx(max(v for size, v in plans if size <= budget), rel=1e-9, abs=0)


def test_a_location_forced_in_rules_out_common_ranks_that_it_does_not_admit():
    constraints = Constraints((2, 8), common_rank=True, include=("location.0",))
    assert schedule(make_profile([1, 1], {}), (1.0, 1.0), 99, constraints=constraints).ranks == (8, 8)
    plan = schedule(make_profile([1, 1], {}), (1.0, 1.0), 99, constraints=constraints, rank_limits=(4, 64))
    assert plan.ranks == (2, 2)


def test_many_locations_get_the_largest_rank_within_their_limits():
    profile = llama_profile(5)
    limits = [64, 5, 1, 0, 16, 32, 64] * 5
    ranks = (64, 4, 1, 1, 16, 32, 64) * 5
    assert schedule(profile, [1.0] * 35, 2**50, rank_limits=limits).ranks == ranks
    enough = profile.bytes(ranks)
    assert schedule(profile, [1.0] * 35, enough, rank_limits=limits).ranks == ranks
    assert schedule(profile, [1.0] * 35, enough - 1, rank_limits=limits).ranks != ranks


def test_uniform_is_the_largest_rank_below_each_limit():
    profile = make_profile([1, 1, 1], {})
    limits = (64, 5, 1)
    for budget, ranks in ((66, (32, 4, 1)), (69, (64, 4, 1)), (3, (1, 1, 1)), (6, (2, 2, 1)), (2, (0, 0, 0))):
        assert schedule_uniform(profile, (1.0,) * 3, budget, rank_limits=limits).ranks == ranks


def test_the_explanation_knows_the_limit():
    profile = make_profile([1, 1], {})
    ranks = schedule(profile, (1.0, 1.0), 40, rank_limits=(4, 64)).ranks
    found = explain(profile, (1.0, 1.0), ranks, rank_limits=(4, 64))
    assert ranks == (4, 32)
    assert found.locations[0].reason.startswith("Rank 4, the largest allowed")
    common = Constraints((2, 8), common_rank=True)
    ranks = schedule(profile, (1.0, 3.0), 40, constraints=common, rank_limits=(4, 64)).ranks
    found = explain(profile, (1.0, 3.0), ranks, constraints=common, rank_limits=(4, 64))
    assert ranks == (0, 8)
    assert found.locations[0].reason == "No LoRA: its matrix is too small for the one rank of all."


def test_limits_and_locations_have_to_agree():
    with pytest.raises(PlanError, match="1 rank limits for 2 locations"):
        schedule(make_profile([1, 1], {}), (1.0, 1.0), 99, rank_limits=(RANKS[-1],))
