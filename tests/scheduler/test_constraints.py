"""Constraints against exhaustive search that simply drops every strategy which breaks one."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks.schedulers.milp import milp
from taskit.errors import BudgetError, PlanError
from taskit.scheduler import Constraints, frontier, schedule, schedule_uniform, solvers
from tests.profiles import hand_profile, llama_profile, sequential_profile
from tests.reference import all_strategies, union_bytes

WEIGHTS = (5, 3, 7, 2, 4, 6, 5, 3, 2)  # parameters per rank of each location


def obeys(ranks, constraints, blocks):
    """What the words of each constraint say, one by one; names are location.0, location.1, ..."""
    inserted = [k for k, rank in enumerate(ranks) if rank]
    chosen = {rank for rank in ranks if rank}
    near = set(blocks) if not constraints.last_blocks else set(sorted(set(blocks))[-constraints.last_blocks :])
    trained = sum(r * w for r, w in zip(ranks, WEIGHTS, strict=False))
    return (
        (not constraints.common_rank or len(chosen) <= 1)
        and (constraints.max_parameters is None or trained <= constraints.max_parameters)
        and all(int(glob.split(".")[1]) in inserted for glob in constraints.include)
        and not any(int(glob.split(".")[1]) in inserted for glob in constraints.exclude)
        and all(blocks[k] in near for k in inserted)
    )


CASES = {
    "common rank": Constraints((1, 4), common_rank=True),
    "parameters": Constraints((1, 2, 4), max_parameters=20),
    "forced": Constraints((1, 4), include=("location.0",)),
    "left out": Constraints((1, 4), exclude=("location.1",)),
    "last block": Constraints((1, 2, 4), last_blocks=1),
    "forced, bounded": Constraints((1, 4), include=("location.1",), exclude=("location.0",), max_parameters=25),
    "forced, common, bounded": Constraints((1, 2), common_rank=True, include=("location.1",), max_parameters=25),
}


@pytest.mark.parametrize("case", CASES)
def test_the_best_of_all_strategies_that_obey(case):
    constraints = CASES[case]
    for seed in range(15):
        rng = np.random.default_rng([seed, 11])
        profile = sequential_profile(rng, blocks=2)
        n = len(profile.locations)
        importance = rng.gamma(1.5, 1.0, n).tolist()
        allowed = [
            s
            for s in all_strategies(profile, importance, constraints.ranks)
            if obeys(s[2], constraints, profile.blocks)
        ]
        sizes = sorted(size for size, _, _ in allowed)
        budgets = [sizes[len(sizes) * i // 4] for i in range(4)]
        plans = frontier(profile, importance, budgets, constraints=constraints, rank_parameters=WEIGHTS[:n])
        for budget, plan in zip(budgets, plans, strict=True):
            assert obeys(plan.ranks, constraints, profile.blocks)
            assert plan.predicted_bytes == union_bytes(profile, plan.ranks) <= budget
            assert plan.objective == pytest.approx(
                max(v for size, v, _ in allowed if size <= budget), rel=1e-9, abs=0
            )


BOUNDED = {
    "parameters": Constraints(max_parameters=400_000),
    "few parameters": Constraints(max_parameters=30_000),
    "parameters and forced": Constraints(max_parameters=400_000, include=("location.1*",)),
    "forced": Constraints(include=("location.1*",), exclude=("location.3*",)),
    "last blocks": Constraints(last_blocks=3),
}


@pytest.mark.parametrize("case", BOUNDED)
def test_large_networks_come_close_to_the_mixed_integer_optimum(case):
    profile, constraints = llama_profile(5), BOUNDED[case]
    n = len(profile.locations)
    importance = np.random.default_rng(3).gamma(1.5, 1.0, n).tolist()
    weights = [500 + 100 * (k % 7) for k in range(n)]
    low, high = profile.bytes([0] * n), profile.bytes([64] * n)
    budget = low + (high - low) * 85 // 100
    plan = schedule(profile, importance, budget, constraints=constraints, rank_parameters=weights)
    best = milp(profile, importance, budget, constraints=constraints, rank_parameters=weights, seconds=10)
    assert union_bytes(profile, plan.ranks) <= budget
    if constraints.max_parameters:
        assert sum(r * w for r, w in zip(plan.ranks, weights, strict=True)) <= constraints.max_parameters
    assert plan.objective >= 0.998 * best.objective


def test_common_rank_in_bins_equals_the_lists(monkeypatch):
    profile = llama_profile(2)
    importance = np.random.default_rng(4).gamma(1.5, 1.0, 14).tolist()
    budgets = [profile.bytes([rank] * 14) for rank in (1, 4, 16)]
    exact = frontier(profile, importance, budgets, constraints=Constraints(common_rank=True))
    monkeypatch.setattr(solvers, "EXACT_LOCATIONS", 0)
    binned = frontier(profile, importance, budgets, constraints=Constraints(common_rank=True), bins=50_000)
    for a, b in zip(exact, binned, strict=True):
        assert len({rank for rank in b.ranks if rank}) == 1
        assert 0.998 * a.objective <= b.objective <= a.objective * (1 + 1e-9)


def test_uniform_is_the_largest_rank_that_fits_everywhere():
    profile = llama_profile(2)
    importance = [1.0] * 14
    for rank, over in ((2, 4), (32, 64)):
        assert set(schedule_uniform(profile, importance, profile.bytes([over] * 14) - 1).ranks) == {rank}
    last = schedule_uniform(profile, importance, profile.bytes([1] * 14), constraints=Constraints(last_blocks=1))
    assert last.ranks[:7] == (0,) * 7
    assert len(set(last.ranks[7:])) == 1
    nothing = schedule_uniform(profile, importance, profile.bytes([1] * 14) - 3)
    assert not any(nothing.ranks)
    assert nothing.shortfall_bytes == 3


def test_forced_locations_that_do_not_fit_name_the_shortfall():
    forced = Constraints((1,), include=("location.0",))
    with pytest.raises(BudgetError, match=r"is 3 bytes short .* forced in need"):
        schedule(hand_profile(), (1.0, 1.0), 7, constraints=forced)
    assert schedule(hand_profile(), (0.0, 1.0), 11, constraints=forced).ranks == (1, 0)


def test_constraints_survive_json():
    constraints = Constraints((4, 8), True, 1000, ("a*",), ("b*",), 2)
    assert (
        Constraints.from_json({k: list(v) if isinstance(v, tuple) else v for k, v in asdict(constraints).items()})
        == constraints
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ranks": ()}, "rank set is empty"),
        ({"ranks": (4, 0)}, "rank set holds 0"),
        ({"ranks": (4, 2.5)}, r"rank set holds 2\.5"),
        ({"max_parameters": 0}, "At most 0"),
        ({"max_parameters": 2}, "2 trained parameters admit no LoRA; give at least 3"),
        ({"last_blocks": 0}, "last 0 blocks"),
        ({"exclude": ("*.q_proj",)}, r"No location matches '\*\.q_proj'"),
        ({"exclude": ("*",)}, "bar all 2 locations"),
        ({"include": ("*.0",), "exclude": ("location.0",)}, r"location\.0 is forced in by '\*\.0', but it matches"),
        ({"include": ("*.0",), "last_blocks": 1}, r"location\.0 is forced in .* more than 1 blocks back"),
        ({"include": ("*",), "max_parameters": 5}, r"forced in by \* train 6 parameters .* the 5 allowed"),
    ],
)
def test_contradictions_are_one_sentence(options, says):
    with pytest.raises(PlanError, match=says) as error:
        schedule(
            replace(hand_profile(), blocks=(0, 1)),
            (1.0, 1.0),
            100,
            constraints=Constraints(**options),
            rank_parameters=(3, 3),
        )
    assert str(error.value).endswith(".")


def test_all_importance_barred_is_refused():
    with pytest.raises(PlanError, match="constraints admit has importance 0"):
        schedule(hand_profile(), (1.0, 0.0), 100, constraints=Constraints(exclude=("location.0",)))


def test_a_bound_on_parameters_needs_them():
    with pytest.raises(PlanError, match="needs rank_parameters"):
        schedule(hand_profile(), (1.0, 1.0), 100, constraints=Constraints(max_parameters=5))
