"""The learning rate that ranks suit, which planning writes into the plan."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskit.errors import PlanError
from taskit.planning.plan import Plan
from taskit.planning.planner import make_plan, uniform_plan
from taskit.planning.recipe import Recipe
from taskit.training.trainer import train
from tests.world import write_bert, write_topics

RECIPE = Recipe(epochs=1, batch_size=8)


@pytest.mark.parametrize(
    ("ranks", "rate"),
    [
        ((64,) * 36, 1e-3),  # 0.05 / sqrt(2304) = 0.00104
        ((8,) * 36, 2.9e-3),  # 0.05 / sqrt(288) = 0.00295
        ((0, 400, 225, 0), 2e-3),
        ((64, 36), 4.5e-3),  # not 0.05 / 10
        ((), 4.5e-3),  # a head alone
        ((0, 0), 4.5e-3),
    ],
)
def test_the_rate_falls_with_the_root_of_the_sum_of_ranks(ranks, rate):
    assert Recipe().rate(ranks) == rate
    assert Recipe(learning_rate=0.5).rate(ranks) == 0.5


@given(st.lists(st.integers(0, 128)), st.integers(0, 128))
def test_more_or_higher_ranks_learn_no_faster(ranks, another):
    assert 0 < Recipe().rate([*ranks, another]) <= Recipe().rate(ranks) < 1
    assert Recipe().rate([2 * rank for rank in ranks]) <= Recipe().rate(ranks)


def test_a_rate_that_trains_nothing_is_refused():
    with pytest.raises(PlanError, match="learning_rate is 0"):
        Recipe(learning_rate=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rates")
    return write_topics(folder / "topics.csv"), write_bert(folder / "bert")


def test_a_plan_says_its_rate(world):
    topics, bert = world
    plans = [make_plan(topics, str(bert), budget, recipe=RECIPE) for budget in ("30%", "100%")]
    assert [plan.training.learning_rate for plan in plans] == [Recipe().rate(plan.ranks.values()) for plan in plans]
    uniform = uniform_plan(topics, str(bert), 16, recipe=RECIPE)
    assert uniform.training.learning_rate == Recipe().rate((16,) * len(uniform.locations))
    mine = make_plan(topics, str(bert), "30%", recipe=Recipe(epochs=1, batch_size=8, learning_rate=7e-4))
    assert mine.training.learning_rate == 7e-4


def test_a_plan_whose_rate_was_struck_out_trains_at_that_of_its_ranks(world, tmp_path):
    topics, bert = world
    plan = make_plan(topics, str(bert), "30%", recipe=RECIPE)
    values = plan.to_dict()
    values["training"]["learning_rate"] = None
    (tmp_path / "plan.json").write_text(json.dumps(values))
    results = [train(one, tmp_path / name) for one, name in ((plan, "a"), (Plan.load(tmp_path / "plan.json"), "b"))]
    weights = [(tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    assert results[0].after == results[1].after


def test_the_micro_batch_and_how_many_make_a_step_name_each_other():
    assert Recipe(batch_size=32, micro_batch=8).gradient_accumulation == 4
    assert Recipe(batch_size=32, micro_batch=11).gradient_accumulation == 3  # 11, 11 and 10
    assert Recipe(batch_size=32, gradient_accumulation=4).micro_batch == 8
    assert Recipe(batch_size=32).micro_batch is None
    assert Recipe(batch_size=32, micro_batch=8).passing(16).gradient_accumulation == 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"batch_size": 32, "micro_batch": 8, "gradient_accumulation": 3},
            "micro-batches of 8 makes 4 of them, not 3",
        ),
        ({"batch_size": 8, "micro_batch": 16}, "micro_batch is 16, more than the batch_size of 8; give at most that"),
        ({"micro_batch": 0}, "micro_batch is 0; give a whole number"),
        ({"gradient_checkpointing": False, "recomputed_blocks": ("layer.0",)}, "names 1 blocks; make them agree"),
    ],
)
def test_a_step_that_cannot_be_taken_so_is_refused(wrong, says):
    with pytest.raises(PlanError, match=says):
        Recipe(**wrong)


def test_a_rate_that_follows_the_ranks_follows_edited_ones():
    chosen = replace(Recipe(), learning_rate=Recipe().rate((8, 8)), rate_follows_ranks=True)
    assert chosen.following((64, 64)).learning_rate == Recipe().rate((64, 64)) < chosen.learning_rate
    assert Recipe(learning_rate=1e-3).following((64, 64)).learning_rate == 1e-3


def test_how_a_step_is_taken_in_words():
    recipe = Recipe(
        batch_size=32, micro_batch=8, gradient_checkpointing=True, recomputed_blocks=("a", "b"), loss_chunk=64
    )
    assert (
        recipe.step
        == "32 rows, 8 of them at once, 2 blocks recomputed in the backward pass, logits of 64 tokens at once"
    )
    assert Recipe(batch_size=4, micro_batch=4).step == "4 rows"
