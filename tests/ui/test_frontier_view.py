"""The slider's answers are those of the scheduler itself."""

import pytest

from taskit.planning.budget import Budget
from taskit.scheduler import schedule
from taskit.ui.frontier_view import STEPS, at_percent, frontier_view
from tests.ui.world import MIB, make_context


def test_every_position_is_the_best_schedule_of_its_budget():
    context = make_context()
    made, pricing = frontier_view(context), context.pricing
    assert (made.budgets[0], made.budgets[-1]) == (pricing.no_update_bytes, pricing.full_lora_bytes)
    for percent in (0, 1, 37, 60, 100):
        alone = schedule(pricing.profile, context.importance, made.budgets[percent], **context.solver_options)
        assert made.schedules[percent].objective == pytest.approx(alone.objective, rel=1e-9)


def test_a_draft_keeps_its_budget_and_its_parts_add_up():
    made = frontier_view(make_context())
    for percent in range(0, STEPS + 1, 20):
        plan = made.draft(at_percent(percent))
        memory = plan.memory
        parts = memory.constant_bytes + memory.module_bytes + memory.activation_bytes + memory.transient_bytes
        assert parts == memory.peak_bytes <= plan.budget_bytes == made.budgets[percent]


def test_a_card_between_two_positions_is_scheduled_by_itself():
    made = frontier_view(make_context())
    size = made.budgets[50] + 1
    plan = made.draft(Budget("card", bytes=size))
    assert plan.budget_bytes == size
    assert plan.objective >= made.schedules[50].objective
    assert made.position(size) == pytest.approx(50, abs=0.1)


def test_a_budget_below_the_backbone_drafts_nothing_instead_of_failing():
    plan = frontier_view(make_context()).draft(Budget("1MiB", bytes=MIB))
    assert not any(plan.ranks.values())
    assert plan.shortfall_bytes > 0


def test_more_budget_never_reaches_less():
    values = [one.objective for one in frontier_view(make_context()).schedules]
    assert values == sorted(values)
    assert values[0] == 0 < values[-1]


def test_the_uniform_method_is_sketched_too():
    made = frontier_view(make_context(method="uniform"))
    assert len(set(made.draft(at_percent(100)).ranks.values())) == 1
