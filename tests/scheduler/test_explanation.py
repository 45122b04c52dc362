"""Explanations: numbers recounted from literal sets, sentences that say the right thing."""

import numpy as np
import pytest

from taskit.scheduler import Constraints, explain, schedule
from tests.profiles import hand_profile, llama_profile, make_profile
from tests.reference import sqrt_ln1p, union_bytes


def explained(profile, importance, budget, **options):
    plan = schedule(profile, importance, budget, **options)
    return plan, explain(profile, importance, plan.ranks, **options)


@pytest.fixture(scope="module")
def decoder():
    profile = llama_profile(5)
    n = len(profile.locations)
    importance = np.random.default_rng(9).gamma(1.5, 1.0, n).tolist()
    importance[-2] = 0.0
    low, high = profile.bytes([0] * n), profile.bytes([64] * n)
    return profile, importance, low + (high - low) // 2


def test_marginal_bytes_are_differences_of_whole_plans(decoder):
    profile, importance, budget = decoder
    plan, why = explained(profile, importance, budget)
    here = union_bytes(profile, plan.ranks)
    for k, one in enumerate(why.locations):
        assert (one.name, one.importance, one.rank) == (profile.locations[k], importance[k], plan.ranks[k])
        without = (*plan.ranks[:k], 0, *plan.ranks[k + 1 :])
        if one.rank:
            assert one.marginal_bytes == here - union_bytes(profile, without)
            assert one.gain_per_byte == pytest.approx(sqrt_ln1p(one.rank, 64) * importance[k] / one.marginal_bytes)
        elif importance[k]:
            buys = {
                r: union_bytes(profile, (*without[:k], r, *without[k + 1 :])) - here for r in (1, 2, 4, 8, 16, 32, 64)
            }
            best = max(sqrt_ln1p(r, 64) * importance[k] / size for r, size in buys.items())
            assert one.gain_per_byte == pytest.approx(best)
            assert one.marginal_bytes in buys.values()


def test_what_was_bought_earns_the_price_and_what_was_not_does_not(decoder):
    profile, importance, budget = decoder
    plan, why = explained(profile, importance, budget)
    bought, refused = [], []
    for k, rank in enumerate(plan.ranks):
        allowed = [0, 1, 2, 4, 8, 16, 32, 64]
        place = allowed.index(rank)
        for a, b, steps in ((place - 1, place, bought), (place, place + 1, refused)):
            if a >= 0 and b < len(allowed) and importance[k]:
                low, high = ((*plan.ranks[:k], allowed[i], *plan.ranks[k + 1 :]) for i in (a, b))
                gain = importance[k] * (sqrt_ln1p(allowed[b], 64) - (sqrt_ln1p(allowed[a], 64) if a else 0.0))
                steps.append(gain / (union_bytes(profile, high) - union_bytes(profile, low)) / why.price)
    assert np.mean(np.array(bought) >= 0.9) >= 0.9
    assert np.mean(np.array(refused) <= 1.1) >= 0.8


def test_memory_without_use_has_no_price(decoder):
    profile, importance, _ = decoder
    n = len(importance)
    assert explained(profile, importance, profile.bytes([64] * n))[1].price == 0.0
    assert explained(profile, importance, profile.bytes([8] * n))[1].price > 0.0


def test_by_hand():
    """make_profile([2, 10]): rank 1 costs 2 and 10 bytes and earns 1 each; 2 bytes of budget buy the first."""
    _, why = explained(make_profile([2, 10], {}), (1.0, 1.0), 2, constraints=Constraints((1,)))
    first, second = why.locations
    assert why.price == 0.5
    assert (first.rank, first.marginal_bytes, first.gain_per_byte) == (1, 2, 0.5)
    assert (second.rank, second.marginal_bytes, second.gain_per_byte) == (0, 10, 0.1)
    assert first.reason == "Rank 1, the largest allowed: its last step earns 1.00 × the price."
    assert second.reason == "No LoRA: rank 1, its best buy, would earn 0.20 × the price."


@pytest.mark.parametrize(
    ("importance", "budget", "options", "place", "says"),
    [
        ((0.0, 1.0), 99, {}, 0, "No LoRA, because its importance is 0."),
        ((1.0, 1.0), 99, {"exclude": ("*.0",)}, 0, r"No LoRA, because it matches *.0, which is excluded."),
        ((1.0, 1.0), 99, {"include": ("*.0",)}, 0, "Forced in by *.0, rank 4, the largest"),
        ((1.0, 1.0), 99, {}, 0, "earns more than memory, which is not scarce"),
        ((1.0, 1.0), 99, {"max_parameters": 1, "ranks": (1,)}, 0, "but trains more parameters than allowed"),
        ((1.0, 1.0), 99, {"common_rank": True}, 1, "the one rank of all"),
        ((1.0, 0.9), 5, {"ranks": (1,)}, 0, "No LoRA: rank 1, its best buy, would earn"),
    ],
)
def test_sentences(importance, budget, options, place, says):
    constraints = Constraints(**{"ranks": (1, 4)} | options)
    _, why = explained(hand_profile(), importance, budget, constraints=constraints, rank_parameters=(1, 1))
    reason = why.locations[place].reason
    assert says in reason
    assert reason.endswith(".")


def test_a_plan_without_any_insertion_is_explained():
    plan, why = explained(hand_profile(), (1.0, 0.6), 3, constraints=Constraints((1,)))
    assert plan.shortfall_bytes == 1
    assert why.price > 0
    assert all(one.rank == 0 and one.marginal_bytes > 3 for one in why.locations)
