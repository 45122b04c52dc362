"""The scheduler against exhaustive search, a mixed-integer program, and what must hold of any plan."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.schedulers.milp import milp
from taskit.errors import BudgetError, PlanError
from taskit.scheduler import RANKS, Constraints, frontier, rank_gain, schedule, solvers
from tests.profiles import (
    encoder_decoder_profile,
    hand_profile,
    llama_profile,
    make_profile,
    random_profile,
    sequential_profile,
)
from tests.reference import all_strategies, objective, union_bytes


def random_importance(rng, locations):
    importance = rng.gamma(1.5, 1.0, locations) * (rng.random(locations) > 0.1)
    importance[rng.integers(locations)] += 0.5
    return importance.tolist()


def budgets_between(profile, count):
    low, high = profile.bytes([0] * len(profile.locations)), profile.bytes([64] * len(profile.locations))
    return [low + (high - low) * i // count for i in range(count + 1)]


def assert_best(profile, importance, ranks):
    strategies = sorted(all_strategies(profile, importance, ranks))
    budgets = sorted({strategies[len(strategies) * i // 7][0] for i in range(7)})
    for budget, plan in zip(
        budgets, frontier(profile, importance, budgets, constraints=Constraints(ranks=ranks)), strict=True
    ):
        best = max(value for size, value, _ in strategies if size <= budget)
        assert plan.predicted_bytes == union_bytes(profile, plan.ranks) <= budget
        assert plan.objective == pytest.approx(objective(importance, plan.ranks, max(ranks)), rel=1e-12, abs=0)
        assert plan.objective == pytest.approx(best, rel=1e-9, abs=0)


@pytest.mark.parametrize("unit", [1, 1_234_567])
@pytest.mark.parametrize("chunk", range(5))
def test_equals_exhaustive_search_on_500_sequential_networks(chunk, unit):
    for seed in range(50 * chunk, 50 * chunk + 50):
        rng = np.random.default_rng([seed, unit])
        blocks = int(rng.integers(1, 4))
        profile = sequential_profile(rng, blocks, unit)
        ranks = RANKS[: 4 if len(profile.locations) <= 4 else 1 + (len(profile.locations) <= 6)]
        assert_best(profile, random_importance(rng, len(profile.locations)), ranks)


def test_equals_exhaustive_search_on_any_needed_by_sets():
    for seed in range(100):
        rng = np.random.default_rng([seed, 2])
        profile = random_profile(rng, locations=5, storages=int(rng.integers(1, 12)))
        assert_best(profile, random_importance(rng, 5), (1, 4))


def test_bins_equal_exhaustive_search_when_a_bin_is_one_byte(monkeypatch):
    monkeypatch.setattr(solvers, "EXACT_LOCATIONS", 0)
    for seed in range(100):
        rng = np.random.default_rng([seed, 3])
        profile = sequential_profile(rng, blocks=3)
        ranks = (1, 4) if len(profile.locations) <= 6 else (4,)
        assert_best(profile, random_importance(rng, len(profile.locations)), ranks)


def test_hand_example_of_the_paper_notes():
    """Algorithm 1 as printed prices {1, 2} at 5."""
    budgets = (0, 3, 4, 5, 9, 10, 11, 12)
    plans = frontier(hand_profile(), (1.0, 0.6), budgets, constraints=Constraints(ranks=(1,)))
    assert [plan.ranks for plan in plans] == [(0, 0)] * 2 + [(0, 1)] * 3 + [(1, 0)] * 2 + [(1, 1)]
    assert [plan.shortfall_bytes for plan in plans] == [4, 1] + [0] * 6


@pytest.mark.parametrize(("blocks", "fraction"), [(6, 0.25), (6, 0.85), (12, 0.25)])
def test_within_a_thousandth_of_the_mixed_integer_optimum(blocks, fraction):
    profile = llama_profile(blocks)
    importance = np.random.default_rng(blocks).gamma(1.5, 1.0, 7 * blocks).tolist()
    low, high = budgets_between(profile, 1)
    budget = low + int(fraction * (high - low))
    plan = schedule(profile, importance, budget)
    assert union_bytes(profile, plan.ranks) <= budget
    assert plan.objective >= 0.999 * milp(profile, importance, budget, seconds=10).objective


LARGE = {"decoder": llama_profile(8), "encoder-decoder": encoder_decoder_profile(6)}


@pytest.mark.parametrize("name", LARGE)
def test_a_larger_budget_never_hurts_and_is_never_exceeded(name):
    profile = LARGE[name]
    importance = random_importance(np.random.default_rng(5), len(profile.locations))
    budgets = budgets_between(profile, 300)
    plans = frontier(profile, importance, budgets)
    for budget, plan in zip(budgets, plans, strict=True):
        assert plan.predicted_bytes == union_bytes(profile, plan.ranks) <= budget
    assert all(b.objective >= a.objective * (1 - 1e-9) for a, b in itertools.pairwise(plans))
    alone = [schedule(profile, importance, budget) for budget in budgets[::50]]
    assert alone == list(plans[::50])


@pytest.mark.parametrize("importance", ["uniform", "random"])
def test_only_ratios_of_importance_matter(importance):
    profile = LARGE["decoder"]
    n = len(profile.locations)
    values = np.ones(n) if importance == "uniform" else np.random.default_rng(6).gamma(1.5, 1.0, n)
    budgets = budgets_between(profile, 5)
    plans = [plan.ranks for plan in frontier(profile, values.tolist(), budgets)]
    for factor in (1e-9, 0.1, 3.0, 7e5):
        assert [plan.ranks for plan in frontier(profile, (values * factor).tolist(), budgets)] == plans


@pytest.mark.parametrize("gain", ["linear", "sqrt", "sqrt_ln1p", "ln", "sqrt_ln"])
def test_a_huge_budget_gives_the_largest_rank_wherever_there_is_importance(gain):
    profile = LARGE["decoder"]
    importance = random_importance(np.random.default_rng(7), len(profile.locations))
    expected = tuple(64 if value else 0 for value in importance)
    assert schedule(profile, importance, 2**50, gain=gain).ranks == expected
    enough = union_bytes(profile, expected)
    assert schedule(profile, importance, enough, gain=gain).ranks == expected


def test_a_constant_gain_never_pays_for_more_than_the_lowest_rank():
    profile = LARGE["decoder"]
    assert set(schedule(profile, [1.0] * len(profile.locations), 2**50, gain="one").ranks) == {1}


def test_equal_strategies_are_chosen_by_bytes_then_by_the_later_location():
    assert schedule(make_profile([5, 3, 3], {}), (1, 1, 1), 5, constraints=Constraints(ranks=(1,))).ranks == (0, 0, 1)


def test_merged_states_stay_within_budget():
    """Far more overlapping sets than states that are tracked: priced too high, then the leftover is spent."""
    for seed in range(4):
        rng = np.random.default_rng([seed, 8])
        profile = random_profile(rng, locations=30, storages=60)
        importance = random_importance(rng, 30)
        budgets = budgets_between(profile, 6)
        for budget, plan in zip(budgets, frontier(profile, importance, budgets, bins=2000), strict=True):
            assert plan.predicted_bytes == union_bytes(profile, plan.ranks) <= budget
            for k, rank in enumerate(plan.ranks):  # nothing more fits
                for more in (r for r in RANKS if r > rank and importance[k]):
                    assert union_bytes(profile, (*plan.ranks[:k], more, *plan.ranks[k + 1 :])) > budget


def test_a_budget_that_admits_nothing_gives_the_empty_plan():
    profile = LARGE["decoder"]
    importance = [1.0] * len(profile.locations)
    (base,) = frontier(profile, importance, (profile.bytes([0] * len(importance)),))
    cheapest = base.predicted_bytes + base.shortfall_bytes
    empty, first = frontier(profile, importance, (cheapest - 1, cheapest))
    assert not any(empty.ranks)
    assert (empty.objective, empty.shortfall_bytes, first.shortfall_bytes) == (0, 1, 0)
    assert sum(first.ranks) == 1
    assert first.predicted_bytes == cheapest


def test_a_budget_below_the_frozen_base_names_the_shortfall():
    profile = make_profile([1], {}, constant=3 * 2**30)
    with pytest.raises(BudgetError, match=r"\(2 GiB\) is 1073741824 bytes short of the .*\(3 GiB\)"):
        schedule(profile, [1.0], 2 * 2**30)


@pytest.mark.parametrize(
    ("importance", "ranks", "message"),
    [
        ((1.0, math.nan), (1,), r"importance of location\.1 is nan"),
        ((1.0, math.inf), (1,), r"importance of location\.1 is inf"),
        ((-1.0, 1.0), (1,), r"importance of location\.0 is -1"),
        ((0.0, 0.0), (1,), "Every importance is 0"),
        ((1.0,), (1,), "1 importances for the 2 locations"),
        ((1.0, 1.0), (), "rank set is empty"),
        ((1.0, 1.0), (4, 0), "rank set holds 0"),
    ],
)
def test_bad_input_is_one_sentence(importance, ranks, message):
    with pytest.raises(PlanError, match=message) as error:
        schedule(hand_profile(), importance, 100, constraints=Constraints(ranks=ranks))
    assert str(error.value).endswith(".")


def test_unknown_gain_is_refused():
    with pytest.raises(PlanError, match=r"'cube'.*sqrt_ln1p"):
        schedule(hand_profile(), (1, 1), 100, gain="cube")


def test_rank_gain_equals_the_table_of_the_paper_notes():
    expected = [0.4075, 0.5130, 0.6209, 0.7255, 0.8238, 0.9152, 1]
    assert [round(rank_gain(r, 64), 4) for r in RANKS] == expected
    literal = [0, 0.8326, 1.1774, 1.4420, 1.6651, 1.8616, 2.0393]
    assert [round(rank_gain(r, 64, "sqrt_ln") * 2.03933, 4) for r in RANKS] == pytest.approx(literal, abs=1e-4)
    assert [rank_gain(16, 64, form) for form in ("one", "linear", "sqrt")] == [1, 0.25, 0.5]
    assert rank_gain(16, 64, "ln") == pytest.approx(2 / 3)
    assert rank_gain(0, 64) == 0
    assert rank_gain(1, 1, "ln") == 0


def test_needs_no_torch():
    code = "import sys, taskit.scheduler; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
