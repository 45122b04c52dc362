"""The joint search against exhaustive search over ranks, blocks and steps, and what must hold of any plan."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from taskit.errors import BudgetError, PlanError
from taskit.memory.profile import RecomputableBlock, Storage
from taskit.scheduler import Constraints, Step, frontier, joint_frontier, joint_schedule, solvers
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
    """All plans that insert something, as (bytes, score)."""
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
                        yield literal_bytes(step, plan, blocks), value - price * time


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
        assert score(plan, steps, importance, ranks, price, limits) == pytest.approx(best, abs=1e-9)
        first = next(k for k, rank in enumerate(schedule.ranks) if rank)
        assert all(step.profile.recomputable[b].last >= first for b in plan.recomputed)
    return plans


def score(plan, steps, importance, ranks, price=PRICE, limits=None):
    largest = [max(r for r in ranks if r <= max(limit, ranks[0])) for limit in limits or [64] * len(importance)]
    most = math.fsum(sqrt_ln1p(r, max(ranks)) * v for r, v in zip(largest, importance, strict=True))
    return plan.objective / most - price * plan.time


@pytest.mark.parametrize("strange", [False, True])
@pytest.mark.parametrize("price", [PRICE, 1.0, 0.0])
def test_equals_exhaustive_search(strange, price):
    for seed in range(40):
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
        assert all(
            r <= max(2, limit) for plan in plans for r, limit in zip(plan.ranks, LIMITS, strict=False)
        )


def test_bins_equal_exhaustive_search_when_a_bin_is_one_byte(monkeypatch):
    monkeypatch.setattr(solvers, "EXACT_LOCATIONS", 0)
    for seed in range(40):
        rng = np.random.default_rng([seed, 33])
        steps = small_steps(rng, strange=True)
        assert_best(steps, rng.gamma(1.5, 1.0, 4).tolist(), (1, 4))
