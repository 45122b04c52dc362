"""The joint search against exhaustive search over ranks, blocks and steps, and what must hold of any plan."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.schedulers.joint_milp import joint_milp
from taskit.errors import BudgetError, PlanError
from taskit.memory.profile import RecomputableBlock
from taskit.scheduler import ANY, RANKS, Constraints, Step, frontier, joint_frontier, joint_schedule, solvers
from taskit.scheduler.bounds import value_bounds
from taskit.scheduler.options import rank_options, value_unit
from taskit.scheduler.problem import build_problem
from tests.profiles import (
    encoder_decoder_profile,
    in_blocks,
    llama_profile,
    make_profile,
    of_rows,
    random_profile,
    sequential_profile,
)
from tests.reference import sqrt_ln1p

PRICE = 0.02
LIMITS = (64, 3, 0, 4, 1, 64)


def small_steps(rng, strange=False):
    """Two micro-batches of up to six locations in two or three blocks."""
    if strange:
        profile = random_profile(rng, 4, int(rng.integers(2, 9)))
        sides = [(0, 1), (2, 3)]
        storages = [
            replace(s, block=int(rng.integers(s.needed_by[-1] > 1, 2)) if rng.random() < 0.7 else None)
            for s in profile.storages
        ]
        blocks = [RecomputableBlock(f"b{i}", *side, int(rng.integers(0, 9))) for i, side in enumerate(sides)]
        whole = replace(
            profile,
            storages=tuple(storages),
            recomputable=tuple(blocks),
            kept_rank_bytes=tuple(int(rng.integers(0, b + 1)) for b in profile.rank_bytes),
        )
    else:
        while len((profile := sequential_profile(rng, int(rng.integers(2, 4)), 12_345)).locations) > 6:
            pass
        whole = in_blocks(profile, rng.random(), rng.random())
    times = (1.0, 1.0 + float(rng.random()))
    return [
        Step(of_rows(whole, share), rows, time, tuple((0.3 * rng.random(len(whole.recomputable))).tolist()))
        for share, rows, time in zip((1, 0.5), (2, 1), times, strict=True)
    ]


def literal_bytes(step, ranks, recomputed):
    """M(s) word for word: what a recomputed block makes is not kept, its input is once anything up to it is there."""
    profile = step.profile
    inserted = {k for k, rank in enumerate(ranks) if rank}
    total = profile.constant_bytes + profile.transient_bytes
    for k in inserted:
        total += profile.fixed_bytes[k] + ranks[k] * profile.rank_bytes[k]
        if any(profile.recomputable[b].first <= k <= profile.recomputable[b].last for b in recomputed):
            total -= ranks[k] * profile.kept_rank_bytes[k]
    total += sum(s.bytes for s in profile.storages if inserted & set(s.needed_by) and s.block not in recomputed)
    return total + sum(
        profile.recomputable[b].input_bytes
        for b in recomputed
        if inserted & set(range(profile.recomputable[b].last + 1))
    )


def everything(steps, importance, ranks, price, admitted):
    """All plans that insert something, as (bytes, score, ranks, time)."""
    top = max(ranks)
    choices = [[0, *(r for r in ranks if r <= max(limit, ranks[0]))] for limit in admitted]
    most = math.fsum(sqrt_ln1p(options[-1], top) * v for options, v in zip(choices, importance, strict=True))
    for step in steps:
        for size in range(len(step.block_time) + 1):
            for blocks in itertools.combinations(range(len(step.block_time)), size):
                time = step.time + math.fsum(step.block_time[b] for b in blocks)
                for plan in itertools.product(*choices):
                    if any(plan):
                        value = math.fsum(sqrt_ln1p(r, top) * v for r, v in zip(plan, importance, strict=True)) / most
                        yield literal_bytes(step, plan, blocks), value - price * time, plan, time


def assert_best(steps, importance, ranks, price=PRICE, limits=None):
    found = sorted(everything(steps, importance, ranks, price, limits or [64] * len(importance)))
    budgets = sorted({found[len(found) * i // 6][0] for i in range(6)} | {found[0][0], found[-1][0]})
    plans = joint_frontier(
        steps, importance, budgets, time_price=price, constraints=Constraints(ranks), rank_limits=limits
    )
    for budget, plan in zip(budgets, plans, strict=True):
        best = max(one[1] for one in found if one[0] <= budget)
        step, schedule = steps[plan.step], plan
        assert schedule.predicted_bytes == literal_bytes(step, schedule.ranks, plan.recomputed) <= budget
        assert schedule.predicted_bytes == step.profile.recomputing(plan.recomputed).bytes(schedule.ranks)
        assert schedule.shortfall_bytes == 0
        assert plan.time == pytest.approx(step.time + sum(step.block_time[b] for b in plan.recomputed))
        assert score(plan, importance, ranks, price, limits) == pytest.approx(best, abs=1e-9)
        first = next(k for k, rank in enumerate(schedule.ranks) if rank)
        assert all(step.profile.recomputable[b].last >= first for b in plan.recomputed)
    return plans


def score(plan, importance, ranks, price=PRICE, limits=None):
    largest = [max(r for r in ranks if r <= max(limit, ranks[0])) for limit in limits or [64] * len(importance)]
    most = math.fsum(sqrt_ln1p(r, max(ranks)) * v for r, v in zip(largest, importance, strict=True))
    return plan.objective / most - price * plan.time


@pytest.mark.parametrize("strange", [False, True])
@pytest.mark.parametrize("price", [PRICE, 1.0, 0.0])
def test_equals_exhaustive_search(strange, price):
    for seed in range(25):
        rng = np.random.default_rng([seed, 31])
        steps = small_steps(rng, strange)
        n = len(steps[0].profile.locations)
        assert_best(steps, rng.gamma(1.5, 1.0, n).tolist(), (1, 4, 16) if n <= 4 else (1, 4), price)


def test_equals_exhaustive_search_within_rank_limits():
    for seed in range(20):
        rng = np.random.default_rng([seed, 32])
        steps = small_steps(rng)
        n = len(steps[0].profile.locations)
        plans = assert_best(steps, rng.gamma(1.5, 1.0, n).tolist(), (2, 4), limits=LIMITS[:n])
        assert all(r <= max(2, limit) for plan in plans for r, limit in zip(plan.ranks, LIMITS, strict=False))


def test_bins_equal_exhaustive_search_when_a_bin_is_one_byte(monkeypatch):
    monkeypatch.setattr(solvers, "EXACT_LOCATIONS", 0)
    for seed in range(40):
        rng = np.random.default_rng([seed, 33])
        steps = small_steps(rng, strange=True)
        assert_best(steps, rng.gamma(1.5, 1.0, 4).tolist(), (1, 4))


MICRO_BATCHES, TIMES = (32, 16, 8, 4, 2, 1), (1.0, 0.95, 0.97, 1.03, 1.2, 1.53)  # planner.md, MiniLM


def large_steps(profile, recompute=0.45):
    whole = in_blocks(profile)
    blocks = len(whole.recomputable)
    return [
        Step(of_rows(whole, rows / 32), rows, time, (time * recompute / blocks,) * blocks)
        for rows, time in zip(MICRO_BATCHES, TIMES, strict=True)
    ]


def budgets_between(steps, count):
    """From the least that inserts anything to LoRA r = 8 everywhere at the whole batch."""
    n = len(steps[0].profile.locations)
    low = steps[-1].profile.bytes([0] * n)
    return [low + (steps[0].profile.bytes([8] * n) - low) * i // count for i in range(count + 1)]


LARGE = {"decoder": llama_profile(8, tokens=4096), "encoder-decoder": of_rows(encoder_decoder_profile(6), 100)}
MEDIUM = {"decoder": llama_profile(4, tokens=4096), "encoder-decoder": of_rows(encoder_decoder_profile(3), 30)}


@pytest.mark.parametrize("name", LARGE)
def test_a_larger_budget_never_hurts_and_is_never_exceeded(name):
    steps = large_steps(LARGE[name])
    importance = np.random.default_rng(5).gamma(1.5, 1.0, len(steps[0].profile.locations)).tolist()
    budgets = budgets_between(steps, 200)
    plans = joint_frontier(steps, importance, budgets)
    for budget, plan in zip(budgets, plans, strict=True):
        assert plan.predicted_bytes == literal_bytes(steps[plan.step], plan.ranks, plan.recomputed)
        assert plan.predicted_bytes <= budget
    scores = [score(plan, importance, RANKS) for plan in plans]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(scores))
    for budget, plan in zip(budgets[::40], plans[::40], strict=True):  # alone, in finer bins
        alone = joint_schedule(steps, importance, budget)
        assert score(alone, importance, RANKS) == pytest.approx(score(plan, importance, RANKS), rel=2e-3)
    assert len({plan.step for plan in plans}) > 3
    assert len({plan.recomputed for plan in plans}) > 3


@pytest.mark.parametrize("name", MEDIUM)
@pytest.mark.parametrize("share", [0.02, 0.1])
def test_within_a_five_hundredth_of_the_mixed_integer_optimum(name, share):
    steps = large_steps(MEDIUM[name])[-2:]
    importance = np.random.default_rng(6).gamma(1.5, 1.0, len(steps[0].profile.locations)).tolist()
    low, high = budgets_between(steps, 1)
    budget = low + int(share * (high - low))
    plan = joint_schedule(steps, importance, budget)
    best = joint_milp(steps, importance, budget, time_price=PRICE, seconds=10)
    assert score(plan, importance, RANKS) >= best.objective - 0.002 * abs(best.objective)


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(),
        Constraints(common_rank=True),
        Constraints(include=("location.1*",), exclude=("location.2*",)),
        Constraints(last_blocks=2),
        Constraints(max_parameters=60_000),
    ],
)
def test_without_blocks_one_step_is_the_problem_of_the_paper(constraints):
    profile = llama_profile(4)
    rng = np.random.default_rng(9)
    importance = rng.gamma(1.5, 1.0, 28).tolist()
    options = {"constraints": constraints, "rank_parameters": [500 + 100 * (k % 7) for k in range(28)]}
    low = profile.bytes(constraints.least_ranks(profile.locations, profile.blocks))
    budgets = [low + (profile.bytes([64] * 28) - low) * i // 12 for i in range(13)]
    plans = joint_frontier([Step(profile, 32, 1.0)], importance, budgets, **options)
    parts = ("ranks", "objective", "predicted_bytes", "shortfall_bytes")
    expected = frontier(profile, importance, budgets, **options)
    assert [[getattr(plan, part) for part in parts] for plan in plans] == [
        [getattr(plan, part) for part in parts] for plan in expected
    ]
    assert {(plan.step, plan.recomputed, plan.time) for plan in plans} == {(0, (), 1.0)}


def test_steps_without_blocks_are_compared_by_score():
    profile = in_blocks(llama_profile(4, tokens=4096))
    named = [replace(of_rows(profile, share), recomputable=()) for share in (1, 0.5, 0.25)]
    named = [replace(p, storages=tuple(replace(s, block=None) for s in p.storages)) for p in named]
    steps = [Step(p, rows, time) for p, rows, time in zip(named, (4, 2, 1), (1.0, 1.1, 1.3), strict=True)]
    importance = np.random.default_rng(10).gamma(1.5, 1.0, 28).tolist()
    low, high = named[2].bytes([0] * 27 + [1]), named[0].bytes([64] * 28)
    budgets = [low + (high - low) * i // 20 for i in range(21)]
    for budget, plan in zip(budgets, joint_frontier(steps, importance, budgets), strict=True):
        alone = [(p, joint_schedule([p], importance, budget)) for p in steps if p.profile.bytes([0] * 28) <= budget]
        assert score(plan, importance, RANKS) == max(
            score(one, importance, RANKS) for _, one in alone if any(one.ranks)
        )


def test_where_all_fits_nothing_is_recomputed_and_the_fastest_step_is_taken():
    steps = large_steps(LARGE["decoder"])
    plan = joint_schedule(steps, [1.0] * 56, 2**60)
    assert (plan.ranks, plan.step, plan.recomputed, plan.time) == ((64,) * 56, 1, (), 0.95)
    equal = [replace(step, time=1.0) for step in steps]
    assert joint_schedule(equal, [1.0] * 56, 2**60).step == 5  # of equally fast ones the smallest


def test_the_least_shortfall_where_nothing_can_be_inserted():
    steps = large_steps(LARGE["decoder"])
    profile = steps[-1].profile
    least, _, needed = min(
        (literal_bytes(steps[-1], plan, blocks), len(blocks), blocks)
        for plan in ([int(i == k) for i in range(56)] for k in range(56))
        for blocks in [(), *((b,) for b in range(8)), *(tuple(range(b, 8)) for b in range(8))]
    )
    empty, first = joint_frontier(steps, [1.0] * 56, (least - 1, least))
    assert not any(empty.ranks)
    assert (empty.step, empty.recomputed, empty.shortfall_bytes) == (5, needed, 1)
    assert empty.predicted_bytes == profile.bytes([0] * 56)
    assert (sum(first.ranks), first.predicted_bytes) == (1, least)


def test_the_budget_is_too_low_only_if_it_is_for_every_step():
    small, large = (make_profile([1], {(0,): 1}, constant=constant) for constant in (10, 20))
    steps = [Step(large, 2, 1.0), Step(small, 1, 1.5)]
    assert joint_schedule(steps, [1.0], 15).step == 1
    with pytest.raises(BudgetError, match="is 1 bytes short of the 10 bytes"):
        joint_schedule(steps, [1.0], 9)


@pytest.mark.parametrize(
    ("constraints", "obeys"),
    [
        (Constraints((1, 4), common_rank=True), lambda ranks: len(set(ranks) - {0}) == 1),
        (Constraints((1, 4), max_parameters=9), lambda ranks: sum(ranks) <= 9),
        (Constraints((1, 4), include=("location.0",)), lambda ranks: ranks[0] > 0),
        (Constraints((1, 4), exclude=("location.1",)), lambda ranks: ranks[1] == 0),
    ],
)
def test_constraints_hold_and_cost_no_more_than_they_must(constraints, obeys):
    for seed in range(8):
        rng = np.random.default_rng([seed, 34])
        steps = small_steps(rng, strange=True)
        importance = rng.gamma(1.5, 1.0, 4).tolist()
        admitted = [0 if f"location.{k}" in constraints.exclude else 64 for k in range(4)]
        allowed = [one for one in everything(steps, importance, (1, 4), PRICE, [64] * 4) if obeys(one[2])]
        whole = sum(value for value, limit in zip(importance, admitted, strict=True) if limit)
        budget = sorted(one[0] for one in allowed)[len(allowed) // 3]
        best = max(
            math.fsum(sqrt_ln1p(r, 4) * v for r, v in zip(ranks, importance, strict=True)) / whole - PRICE * time
            for size, _, ranks, time in allowed
            if size <= budget
        )
        plan = joint_schedule(steps, importance, budget, constraints=constraints, rank_parameters=[1] * 4)
        assert obeys(plan.ranks)
        assert plan.objective / whole - PRICE * plan.time == pytest.approx(best, abs=1e-9)


def test_bad_input_is_one_sentence():
    profile = in_blocks(llama_profile(1))
    with pytest.raises(PlanError, match=r"0 times for 1 recomputable blocks.*\.$"):
        Step(profile, 1, 1.0)
    with pytest.raises(PlanError, match=r"negative or not finite.*\.$"):
        Step(profile, 1, 1.0, (math.nan,))
    with pytest.raises(PlanError, match=r"none or disagree.*\.$"):
        joint_schedule([], [1.0] * 7, 10**9)
    with pytest.raises(PlanError, match=r"price of time is -1.*\.$"):
        joint_schedule([Step(profile, 1, 1.0, (0.1,))], [1.0] * 7, 10**9, time_price=-1)


@pytest.mark.parametrize("constraints", [Constraints(common_rank=True), Constraints(max_parameters=30_000)])
def test_constraints_hold_where_bins_are_needed(constraints):
    steps = large_steps(MEDIUM["decoder"])[-2:]
    importance = np.random.default_rng(11).gamma(1.5, 1.0, 28).tolist()
    weights = [500 + 100 * (k % 7) for k in range(28)]
    free = joint_frontier(steps, importance, budgets_between(steps, 10))
    plans = joint_frontier(
        steps, importance, budgets_between(steps, 10), constraints=constraints, rank_parameters=weights
    )
    for budget, plan, other in zip(budgets_between(steps, 10), plans, free, strict=True):
        ranks = plan.ranks
        assert literal_bytes(steps[plan.step], ranks, plan.recomputed) <= budget
        assert len(set(ranks) - {0}) <= 1 or not constraints.common_rank
        assert sum(r * w for r, w in zip(ranks, weights, strict=True)) <= (constraints.max_parameters or 2**60)
        assert plan.objective <= other.objective * 1.002
    assert plans[-1].objective > plans[1].objective > 0


def test_merged_states_stay_within_budget():
    """Far more overlapping sets than states that are tracked, some in blocks: priced too high, never too low."""
    for seed in range(3):
        rng = np.random.default_rng([seed, 35])
        profile = random_profile(rng, locations=30, storages=60)
        sides = [(first, first + 4) for first in range(0, 30, 5)]
        storages = [replace(s, block=5 if rng.random() < 0.7 else None) for s in profile.storages]
        blocks = tuple(RecomputableBlock(f"b{i}", *side, int(rng.integers(0, 9))) for i, side in enumerate(sides))
        step = Step(replace(profile, storages=tuple(storages), recomputable=blocks), 1, 1.0, (0.1,) * 6)
        importance = rng.gamma(1.5, 1.0, 30).tolist()
        low = step.profile.recomputing(range(6)).bytes([1] + [0] * 29)
        budgets = [low + (step.profile.bytes([64] * 30) - low) * i // 6 for i in range(7)]
        for budget, plan in zip(budgets, joint_frontier([step], importance, budgets, bins=2000), strict=True):
            size = literal_bytes(step, plan.ranks, plan.recomputed)
            assert plan.predicted_bytes == size <= budget
            assert any(plan.ranks)
            for b in plan.recomputed:  # none without need
                assert literal_bytes(step, plan.ranks, set(plan.recomputed) - {b}) > budget


def test_bounds_hold_and_are_close():
    for seed in range(20):
        rng = np.random.default_rng([seed, 36])
        step = small_steps(rng)[0]
        importance = rng.gamma(1.5, 1.0, len(step.profile.locations)).tolist()
        problem = build_problem(
            step.profile, importance, ANY, "sqrt_ln1p", None, block_times=step.block_time, time_price=PRICE
        )
        trellis = solvers.trellis_of(problem, rank_options(problem))
        budgets = np.linspace(0, problem.span_bytes, 40).astype(int).tolist()
        bounds = value_bounds(trellis, budgets, problem.span_bytes)
        unit = value_unit(problem, problem.values)
        plans = solvers.best_plans(problem, budgets, bins=1)
        found = np.array([-np.inf if plan is None else problem.value_of(plan) / unit for plan in plans])
        assert np.all(bounds >= found - 1e-6 * abs(bounds))
        assert bounds[-1] == pytest.approx(found[-1], rel=0.01)
