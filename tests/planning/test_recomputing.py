"""Planning recomputes blocks where that lets LoRA nearer the input, and nowhere else."""

from dataclasses import replace

import pytest
from transformers import AlbertConfig, AlbertForSequenceClassification

from taskit.backbone.processors import make_collator
from taskit.data import load
from taskit.errors import BudgetError, PlanError
from taskit.planning.budget import Budget
from taskit.planning.context import prepare
from taskit.planning.levers import CHECKPOINTING, effects
from taskit.planning.planner import decide, make_plan, reprice
from taskit.planning.recipe import Recipe
from taskit.scheduler import Constraints
from taskit.training.trainer import train
from taskit.ui.frontier_view import at_percent, frontier_view
from tests.world import write_bert, write_tokenizer, write_topics

RECIPE = Recipe(epochs=1, batch_size=8)
HIDDEN = 32  # numbers of a token in the Bert of tests/world.py


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recomputing")
    write_topics(folder / "topics.csv")
    return folder, write_bert(folder / "bert")


def plan_with(world, budget, recomputing=None, **options):
    folder, bert = world
    recipe = replace(RECIPE, gradient_checkpointing=recomputing)
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


def test_nothing_is_recomputed_where_every_block_fits(world):
    plan = plan_with(world, "100%")
    assert first_block(plan) == 0
    assert not plan.training.gradient_checkpointing


def test_nothing_is_recomputed_for_blocks_that_are_barred(world):
    plan = plan_with(world, "60%", constraints=Constraints(last_blocks=1))
    assert first_block(plan) == 2
    assert not plan.training.gradient_checkpointing


def test_a_percentage_means_the_same_bytes_either_way(world):
    plans = [plan_with(world, "70%", on) for on in (None, False, True)]
    assert len({(p.budget_bytes, p.memory.no_update_bytes, p.memory.full_lora_bytes) for p in plans}) == 1


def test_what_is_forced_in_may_fit_by_recomputing(world):
    forced = Constraints(include=("*layer.0.*",), ranks=(8,))
    with pytest.raises(BudgetError):
        plan_with(world, "60%", False, constraints=forced)
    assert plan_with(world, "60%", constraints=forced).training.gradient_checkpointing
    with pytest.raises(BudgetError, match="short of the"):
        plan_with(world, "1%", constraints=forced)


def test_the_backward_pass_ends_at_the_first_lora(world):
    """The inputs of blocks before it are not kept: one input, its own, is all that it may cost more."""
    folder, bert = world
    made = prepare(folder / "topics.csv", str(bert), recipe=RECIPE)
    last = max(place.block for place in made.step_spec.locations)
    ranks = [8 if place.block == last else 0 for place in made.step_spec.locations]
    again = made.recomputing
    rows, tokens = next(shape for name, shape, _ in made.step_spec.conditions.batch.tensors if name == "input_ids")
    assert again.step_spec.rehearse(ranks) - made.step_spec.rehearse(ranks) < 4 * rows * tokens * HIDDEN
    assert again.step_spec.rehearse([0] * len(ranks)) == made.step_spec.rehearse([0] * len(ranks))


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
    assert made.recomputing is None
    plan = decide(made, at_percent(60))
    assert not plan.training.gradient_checkpointing
    lever = next(one for one in effects(made, tuple(plan.ranks.values())) if one.lever == CHECKPOINTING)
    assert lever.bytes is None
    with pytest.raises(PlanError, match="--no-gradient-checkpointing"):
        prepare(world[0] / "topics.csv", str(albert), recipe=replace(RECIPE, gradient_checkpointing=True))
