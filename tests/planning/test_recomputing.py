"""Planning spends what costs no quality first: smaller micro-batches, then blocks that are computed again."""

from dataclasses import replace
from html import escape

import pytest
from transformers import AlbertConfig, AlbertForSequenceClassification

from taskit.backbone.processors import make_collator
from taskit.data import load
from taskit.errors import BudgetError, PlanError
from taskit.planning.budget import Budget
from taskit.planning.context import prepare
from taskit.planning.levers import CHECKPOINTING, effects
from taskit.planning.plan import Plan
from taskit.planning.planner import decide, make_plan
from taskit.planning.recipe import Recipe
from taskit.planning.repricing import reprice
from taskit.scheduler import Constraints
from taskit.terminal import show_bytes
from taskit.training.trainer import train
from taskit.ui.frontier_view import at_percent, frontier_view
from taskit.ui.plan_step import BEHIND_SLIDER, rehearsed, settle
from tests.world import write_bert, write_tokenizer, write_topics

FREE = Recipe(epochs=1, batch_size=8)
RECIPE = replace(FREE, micro_batch=8)  # named, so that recomputing blocks is all that is left
HIDDEN = 32  # numbers of a token in the Bert of tests/world.py


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recomputing")
    write_topics(folder / "topics.csv")
    return folder, write_bert(folder / "bert")


def plan_with(world, budget, recomputing=None, recipe=RECIPE, **options):
    folder, bert = world
    recipe = replace(recipe, gradient_checkpointing=recomputing)
    return make_plan(folder / "topics.csv", str(bert), budget, recipe=recipe, **options)


def first_block(plan):
    return min(place.block for place in plan.locations if place.rank)


def test_a_narrow_budget_reaches_the_first_block_by_recomputing(world):
    keeping, recomputing = plan_with(world, "50%", False), plan_with(world, "50%")
    assert recomputing.training.gradient_checkpointing
    assert first_block(recomputing) < first_block(keeping)
    assert recomputing.objective > keeping.objective
    assert recomputing.memory.peak_bytes <= recomputing.budget_bytes == keeping.budget_bytes
    assert not keeping.training.gradient_checkpointing


def test_smaller_micro_batches_come_before_anything_else(world):
    """At 60 % every location gets the largest rank, as at 100 %, from smaller micro-batches alone."""
    plan, whole = plan_with(world, "60%", recipe=FREE), plan_with(world, "200%", recipe=FREE)
    assert plan.ranks == whole.ranks
    assert plan.training.micro_batch < whole.training.micro_batch == 8
    assert plan.training.gradient_accumulation == -(-8 // plan.training.micro_batch)
    assert plan.training.recomputed_blocks == whole.training.recomputed_blocks == ()
    assert [one.sentence.split()[1] for one in plan.savings] == ["micro-batches"]
    assert not whole.savings


def test_what_is_named_stays_named(world):
    plan = plan_with(world, "60%", False)
    assert (plan.training.micro_batch, plan.training.gradient_accumulation) == (8, 1)
    assert not plan.training.gradient_checkpointing
    assert set(plan_with(world, "60%", recipe=FREE, constraints=Constraints(ranks=(3,))).ranks.values()) == {3}


def test_no_rank_reaches_half_of_its_matrix(world):
    """The narrowest matrices of this Bert are 32 wide."""
    assert max(plan_with(world, "1000%").ranks.values()) == 8
    assert max(plan_with(world, "1000%", constraints=Constraints(ranks=(64,))).ranks.values()) == 64


def test_nothing_is_recomputed_below_the_first_lora(world):
    plan = plan_with(world, "60%", constraints=Constraints(last_blocks=1))
    assert first_block(plan) == 2
    assert all(name.endswith("layer.2") for name in plan.training.recomputed_blocks)


def test_a_percentage_means_the_same_bytes_either_way(world):
    plans = [plan_with(world, "70%", on) for on in (None, False, True)]
    assert len({(p.budget_bytes, p.memory.no_update_bytes, p.memory.full_lora_bytes) for p in plans}) == 1


def test_what_is_forced_in_may_fit_by_recomputing(world):
    forced = Constraints(include=("*layer.0.*",), ranks=(8,))
    with pytest.raises(BudgetError):
        plan_with(world, "60%", False, constraints=forced)
    assert plan_with(world, "60%", constraints=forced).training.gradient_checkpointing
    with pytest.raises(BudgetError, match=r"short of the .* less\), or a smaller model\.$"):
        plan_with(world, "1%", constraints=forced)


def test_the_backward_pass_ends_at_the_first_lora(world):
    """The inputs of blocks before it are not kept: one input, its own, is all that it may cost more."""
    folder, bert = world
    step_spec = prepare(folder / "topics.csv", str(bert), recipe=RECIPE).step_spec
    last = max(place.block for place in step_spec.locations)
    ranks = [8 if place.block == last else 0 for place in step_spec.locations]
    again = step_spec.checkpointing(True)
    rows, tokens = next(shape for name, shape, _ in step_spec.conditions.batch.tensors if name == "input_ids")
    assert again.rehearse(ranks) - step_spec.rehearse(ranks) < 4 * rows * tokens * HIDDEN
    assert again.rehearse([0] * len(ranks)) == step_spec.rehearse([0] * len(ranks))


@pytest.mark.parametrize("blocks", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_the_additive_profile_knows_any_recomputed_blocks(world, blocks):
    folder, bert = world
    made = prepare(folder / "topics.csv", str(bert), recipe=RECIPE)
    profile, ranks = made.steps[0].profile, (8,) * len(made.step_spec.locations)
    names = tuple(profile.recomputable[i].name for i in blocks)
    peak = made.step_spec.checkpointing(bool(blocks), names).rehearse(ranks)
    assert profile.recomputing(blocks).bytes(ranks) == pytest.approx(peak, rel=0.02)


def test_profiles_of_all_micro_batches_lie_on_a_line(world):
    folder, bert = world
    made = prepare(folder / "topics.csv", str(bert), recipe=FREE)
    ranks = (8,) * len(made.step_spec.locations)
    assert [step.micro_batch for step in made.steps] == [8, 4, 3, 2, 1]
    for step in made.steps:
        peak = made.step_spec.passing(step.micro_batch).rehearse(ranks)
        assert step.profile.recomputing(()).bytes(ranks) == pytest.approx(peak, rel=0.03)


def test_the_peak_of_recomputing_is_measured_too(world, tmp_path):
    plan = plan_with(world, "50%")
    result = train(plan, tmp_path / "run")
    assert result.measured_peak_bytes == pytest.approx(plan.memory.peak_bytes, rel=0.03)


def test_a_recomputing_plan_is_repriced_as_it_is(world):
    folder, _ = world
    plan = plan_with(world, "50%")
    data = load(folder / "topics.csv")
    collator = make_collator(plan.backbone, plan.data.task, None)
    assert reprice(plan, data, collator) == plan
    less = replace(plan, locations=tuple(replace(place, rank=min(place.rank, 1)) for place in plan.locations))
    found = reprice(less, data, collator)
    assert found.memory.peak_bytes < plan.memory.peak_bytes
    assert found.memory.full_lora_bytes == plan.memory.full_lora_bytes


def test_drafts_recompute_as_plans_do(world):
    folder, bert = world
    made = frontier_view(prepare(folder / "topics.csv", str(bert), recipe=RECIPE))
    for percent in (50, 100):
        draft, plan = made.draft(at_percent(percent)), decide(made.context, at_percent(percent))
        assert draft.training.gradient_checkpointing == plan.training.gradient_checkpointing
        assert first_block(draft) == first_block(plan)
    between = made.budgets[50] + 1
    assert made.draft(Budget("card", bytes=between)).training.gradient_checkpointing


def test_a_plan_edited_into_nonsense_is_refused_in_one_sentence(world):
    folder, _ = world
    plan = plan_with(world, "50%")
    values = plan.to_dict()
    wrong = {**values, "training": {**values["training"], "micro_batch": 3}}
    with pytest.raises(
        PlanError, match=r"cannot be trained: A batch_size of 8 in micro-batches of 3 makes 3 of them"
    ):
        Plan.from_dict(wrong)
    named = {"recomputed_blocks": ["bert.encoder.layer.9"], "gradient_checkpointing": True}
    stranger = Plan.from_dict({**values, "training": {**values["training"], **named}})
    with pytest.raises(PlanError, match=r"recomputes the block bert\.encoder\.layer\.9, which the backbone does not"):
        reprice(stranger, load(folder / "topics.csv"), make_collator(plan.backbone, plan.data.task, None))


def test_the_page_shows_the_plan_that_it_would_train(world):
    folder, bert = world
    made = frontier_view(prepare(folder / "topics.csv", str(bert), recipe=FREE))
    note, chosen, view = settle(made, 30, BEHIND_SLIDER)
    assert note == ""
    assert chosen.rehearsed
    assert chosen.plan == rehearsed(made, chosen).plan == decide(made.context, at_percent(30))
    assert show_bytes(chosen.plan.memory.peak_bytes) in view
    assert all(escape(one.sentence) in view for one in chosen.plan.savings)


@pytest.fixture(scope="module")
def albert(tmp_path_factory):
    """A backbone whose blocks cannot be recomputed."""
    folder = tmp_path_factory.mktemp("albert")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = AlbertConfig(vocab_size=len(write_tokenizer(folder)), embedding_size=8, pad_token_id=0, **sizes)
    AlbertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_backbone_that_cannot_recompute_is_planned_without(world, albert):
    made = prepare(world[0] / "topics.csv", str(albert), recipe=RECIPE)
    assert not any(step.profile.recomputable for step in made.steps)
    plan = decide(made, at_percent(60))
    assert not plan.training.gradient_checkpointing
    lever = next(one for one in effects(made, plan) if one.lever == CHECKPOINTING)
    assert lever.bytes is None
    with pytest.raises(PlanError, match="--no-gradient-checkpointing"):
        prepare(world[0] / "topics.csv", str(albert), recipe=replace(RECIPE, gradient_checkpointing=True))
