"""Whole plans on small real models: inside the budget, the same every time, honest about their bytes."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from taskit.backbone.loading import empty_model
from taskit.backbone.processors import make_collator
from taskit.backbone.sources import find_backbone
from taskit.data import load, write_digits
from taskit.errors import BackboneError, BudgetError, PlanError, RunError, ZooError
from taskit.planning.plan import Plan
from taskit.planning.planner import make_plan, search, uniform_plan
from taskit.planning.recipe import Recipe
from taskit.planning.repricing import reprice
from taskit.planning.step_spec import StepSpec, build_step_spec
from taskit.scheduler import Constraints, Schedule
from taskit.training.trainer import train
from taskit.transfer.importance import TRIAL
from tests.tiny import tiny_model
from tests.world import write_bert, write_llama, write_rhymes, write_tokenizer, write_topics

RECIPE = Recipe(epochs=2, batch_size=8)
NAMED = replace(RECIPE, micro_batch=8, gradient_checkpointing=False)  # so that ranks are all that is planned


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_bert(folder / "bert")
    write_llama(folder / "llama")
    write_topics(folder / "topics.csv")
    write_rhymes(folder / "rhymes.jsonl")
    return folder


def plan_topics(world, budget="60%", recipe=RECIPE, **options):
    return make_plan(world / "topics.csv", str(world / "bert"), budget, recipe=recipe, **options)


@pytest.mark.parametrize("percent", [20, 60, 100])
def test_the_peak_is_within_the_budget_and_its_parts_add_up(world, percent):
    plan = plan_topics(world, f"{percent}%")
    memory = plan.memory
    assert memory.peak_bytes <= plan.budget_bytes
    parts = memory.constant_bytes + memory.module_bytes + memory.activation_bytes + memory.transient_bytes
    assert parts == memory.peak_bytes
    assert sum(memory.block_bytes) == memory.activation_bytes
    span = memory.full_lora_bytes - memory.no_update_bytes
    assert plan.budget_bytes == memory.no_update_bytes + int(percent / 100 * span)


@pytest.mark.parametrize("recomputing", [False, True])
def test_more_budget_never_lowers_the_objective(world, recomputing):
    recipe = replace(RECIPE, gradient_checkpointing=recomputing)
    data, bert = world / "topics.csv", str(world / "bert")
    objectives = [make_plan(data, bert, f"{percent}%", recipe=recipe).objective for percent in (10, 40, 70, 100)]
    assert objectives == sorted(objectives)


def test_the_same_call_gives_the_same_bytes(world, tmp_path):
    for name in ("a.json", "b.json"):
        plan_topics(world).save(tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_plan_survives_its_file(world, tmp_path):
    plan = plan_topics(world)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_without_a_zoo_the_trial_alone_says_what_matters(world):
    locations = plan_topics(world).locations
    assert all(location.sources.keys() == {TRIAL} for location in locations)
    assert sum(location.importance**2 for location in locations) == pytest.approx(len(locations))
    assert len({location.importance for location in locations}) > 1


def test_without_a_zoo_the_papers_importance_is_uniform(world):
    assert {location.importance for location in plan_topics(world, importance="ratio").locations} == {1.0}


def test_learned_tasks_shape_the_importance(world, tmp_path):
    learned = uniform_plan(world / "topics.csv", str(world / "bert"), 4, recipe=RECIPE)
    train(learned, tmp_path / "run")
    zoo = tmp_path / "zoo" / "topics"
    zoo.parent.mkdir()
    (tmp_path / "run" / "adapter").rename(zoo)
    tensors = load_file(zoo / "adapter_model.safetensors")  # this toy may keep its first epoch, with B = 0
    generator = torch.Generator().manual_seed(0)
    made = {k: 0.01 * torch.randn(t.shape, generator=generator) if "lora_B" in k else t for k, t in tensors.items()}
    save_file(made, zoo / "adapter_model.safetensors")
    plan = plan_topics(world, zoo=tmp_path / "zoo", similarity="raw")
    assert plan.skipped == ()
    (similarity,) = plan.similarity
    assert similarity.task == "topics"
    assert similarity.used
    assert len({location.importance for location in plan.locations}) > 1
    for location in plan.locations:
        assert location.importance == pytest.approx(sum(location.sources.values()))
        assert location.sources.keys() == {TRIAL, similarity.adapter}


def test_generation_is_planned_too(world):
    plan = make_plan(world / "rhymes.jsonl", str(world / "llama"), "60%", recipe=RECIPE)
    assert plan.data.task == "text-generation"
    assert any(plan.ranks.values())
    assert plan.memory.peak_bytes <= plan.budget_bytes


def test_the_attention_kernel_is_planned_and_trained_alike(world, tmp_path):
    fused, eager = (plan_topics(world, "100%", attention=kernel) for kernel in ("sdpa", "eager"))
    assert plan_topics(world, "100%").memory == fused.memory
    # on both ends of the scale eager attention keeps its matrix, (rows, heads, length, length) in each block
    assert eager.memory.full_lora_bytes > fused.memory.full_lora_bytes
    eager.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json").backbone.attention == "eager"
    result = train(Plan.load(tmp_path / "plan.json"), tmp_path / "run")
    assert result.measured_peak_bytes == pytest.approx(eager.memory.peak_bytes, rel=0.03)


def test_an_unknown_attention_kernel_is_refused_before_the_data_is_read(world):
    with pytest.raises(BackboneError, match='"flash9"'):
        make_plan(world / "nowhere.csv", str(world / "bert"), "60%", attention="flash9")


def test_a_model_without_the_kernel_says_so(tmp_path):
    folder = tmp_path / "model"
    write_tokenizer(folder)
    tiny_model("mamba").save_pretrained(folder)
    backbone = find_backbone(str(folder), attention="sdpa")
    with pytest.raises(BackboneError, match=r"with sdpa: leave --attention out\.$"):
        empty_model(backbone, task="text-generation", labels=())


def test_a_budget_under_the_frozen_base_names_the_shortfall(world):
    with pytest.raises(BudgetError, match=r"\d+ bytes .* short"):
        plan_topics(world, "1KiB")


def test_a_budget_that_admits_no_lora_leaves_generation_nothing_to_train(world):
    with pytest.raises(BudgetError, match="admits no LoRA"):
        make_plan(world / "rhymes.jsonl", str(world / "llama"), "0.001%", recipe=NAMED)


def test_a_budget_that_admits_no_lora_trains_the_head_of_a_classifier(world, tmp_path):
    plan = plan_topics(world, "0.001%", NAMED)
    assert not any(plan.ranks.values())
    assert plan.shortfall_bytes > 0
    result = train(plan, tmp_path / "run")
    # the features that the linear head is fitted on weigh something on a model as small as this
    assert result.measured_peak_bytes <= 1.05 * plan.budget_bytes


def test_too_long_texts_for_the_model_are_refused(world):
    with pytest.raises(PlanError, match="reads 32 tokens"):
        make_plan(world / "topics.csv", str(world / "bert"), "60%", recipe=Recipe(max_length=64))


def test_a_backbone_for_other_data_is_refused(world):
    with pytest.raises(BackboneError, match="llama"):
        make_plan(write_digits(world / "digits"), str(world / "llama"), "60%")


def test_a_zoo_that_is_no_folder_is_refused(world):
    with pytest.raises(ZooError, match="not a folder"):
        plan_topics(world, zoo=world / "nowhere")


def test_constraints_hold_in_the_plan_and_survive_its_file(world, tmp_path):
    solver_options = Constraints(
        (2, 4), max_parameters=2_000, include=("*.2.*query",), exclude=("*.value",), last_blocks=2
    )
    plan = plan_topics(world, "90%", constraints=solver_options, gain="sqrt")
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert (plan.constraints, plan.gain) == (solver_options, "sqrt")
    assert plan.trainable_parameters <= 2_000
    assert set(plan.ranks.values()) <= {0, 2, 4}
    assert plan.ranks["bert.encoder.layer.2.attention.self.query"] > 0
    inserted = [location for location in plan.locations if location.rank]
    assert all(location.block > 0 and not location.name.endswith("value") for location in inserted)


def test_every_location_is_explained(world):
    plan = plan_topics(world, recipe=NAMED)
    assert plan.explanation is not None
    assert plan.explanation.price > 0
    for location, one in zip(plan.locations, plan.explanation.locations, strict=True):
        assert (one.name, one.rank, one.importance) == (location.name, location.rank, location.importance)
        assert one.marginal_bytes > 0
        assert not location.rank or one.marginal_bytes == location.bytes


def test_uniform_gives_the_largest_rank_that_fits_everywhere(world):
    plan = plan_topics(world, "100%", NAMED, method="uniform")
    assert plan.method == "uniform"
    assert set(plan.ranks.values()) == {8}
    assert plan.memory.peak_bytes <= plan.budget_bytes
    assert plan.explanation is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"constraints": Constraints(max_parameters=10)}, "heads alone train"),
        ({"constraints": Constraints(exclude=("*.q_proj",))}, "No location matches"),
        ({"gain": "cube"}, "'cube'"),
        ({"method": "magic"}, "'magic'"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(world, options, says):
    with pytest.raises(PlanError, match=says):
        plan_topics(world, **options)


def test_forced_locations_beyond_the_budget_name_the_shortfall(world):
    with pytest.raises(BudgetError, match=r"short of .* forced in need"):
        plan_topics(world, "5%", NAMED, constraints=Constraints(include=("*.0.*query",)))


def test_plans_of_before_constraints_are_still_read(saved, tmp_path):
    new = ("gain", "constraints", "shortfall_bytes", "explanation")
    old = Plan.load(edited(saved, tmp_path, lambda v: [v.pop(name) for name in new]))
    assert (old.constraints, old.explanation) == (Constraints(), None)


@pytest.fixture(scope="module")
def saved(world):
    plan_topics(world, recipe=NAMED).save(world / "plan.json")
    return json.loads((world / "plan.json").read_text())


def edited(saved, tmp_path, change):
    values = json.loads(json.dumps(saved))
    change(values)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v["locations"][0].update(rank=-1), "rank -1"),
        (lambda v: v["locations"][0].update(rank="8"), "rank '8'"),
        (lambda v: v["locations"][0].update(rank=True), "rank True"),
        (lambda v: v["locations"].append(v["locations"][0]), "twice"),
        (lambda v: v.pop("budget_bytes"), "budget_bytes"),
        (lambda v: v.update(schema=9), "schema"),
        (lambda v: v["training"].update(epochs=0), "epochs is 0"),
        (lambda v: v["training"].update(batch_size=0), "batch_size is 0"),
        (lambda v: v["training"].update(optimizer="adam9"), "adam9"),
    ],
)
def test_a_broken_plan_is_refused(saved, tmp_path, change, says):
    with pytest.raises(PlanError, match=says):
        Plan.load(edited(saved, tmp_path, change))


def test_an_unknown_location_is_refused_before_anything_is_written(saved, tmp_path):
    path = edited(saved, tmp_path, lambda v: v["locations"][0].update(name="bert.encoder.layer.9.query"))
    with pytest.raises(PlanError, match=r"layer\.9"):
        train(Plan.load(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rank_changed_by_hand_is_honoured_and_priced_anew(saved, tmp_path):
    def change(values):
        chosen = max(values["locations"], key=lambda location: location["rank"])
        chosen["rank"] //= 2

    plan = Plan.load(edited(saved, tmp_path, change))
    result = train(plan, tmp_path / "run")
    rewritten = Plan.load(tmp_path / "run" / "plan.json")
    assert rewritten.ranks == plan.ranks
    assert rewritten.memory.peak_bytes == result.predicted_peak_bytes < saved["memory"]["peak_bytes"]
    assert rewritten.trainable_parameters == result.trainable_parameters


def test_a_rank_changed_by_hand_is_honoured_even_where_the_peak_stays(saved, tmp_path, monkeypatch):
    """Two places of one shape swap their ranks: peak and trained parameters are as before, the plan is not."""
    first, second = _of_one_shape(saved["locations"])

    def swap(values):
        one, other = values["locations"][first], values["locations"][second]
        one["rank"], other["rank"] = other["rank"], one["rank"]

    plan = Plan.load(edited(saved, tmp_path, swap))
    monkeypatch.setattr(StepSpec, "rehearse", lambda *_: plan.memory.peak_bytes)
    data = load(plan.data.source)
    collator = make_collator(plan.backbone, plan.data.task, plan.training.max_length)
    priced = reprice(plan, data, collator)
    assert priced.ranks == plan.ranks
    assert priced.explanation is None
    names = [place.name for place in plan.locations]
    profile = trace_of(plan, data, collator)
    ranks = [plan.ranks[name] for name in names]
    for k, place in enumerate(priced.locations):
        without = [0 if i == k else rank for i, rank in enumerate(ranks)]
        assert place.bytes == (profile.bytes(ranks) - profile.bytes(without) if place.rank else 0)
    untouched = Plan.from_dict(saved, "saved")
    assert reprice(untouched, data, collator) == untouched


def _of_one_shape(locations):
    """Indices of a query with a rank, and of a key or query with another one."""
    alike = [k for k, place in enumerate(locations) if place["role"] in ("q", "k")]
    return next((a, b) for a in alike for b in alike if locations[a]["rank"] != locations[b]["rank"])


def trace_of(plan, data, collator):
    return build_step_spec(plan.backbone, data, plan.training, collator).trace()


def test_a_rank_raised_over_the_budget_is_refused(saved, tmp_path):
    path = edited(saved, tmp_path, lambda v: [location.update(rank=64) for location in v["locations"]])
    with pytest.raises(BudgetError, match="more than its budget"):
        train(Plan.load(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_changed_data_is_noticed(saved, tmp_path):
    path = edited(saved, tmp_path, lambda v: v["data"].update(source=str(tmp_path / "topics.csv")))
    write_topics(tmp_path / "topics.csv", seed=1)
    with pytest.raises(RunError, match="changed"):
        train(Plan.load(path), tmp_path / "run")


def test_a_search_that_overshoots_goes_on_until_something_fits():
    """Every answer stands 30 above its prediction, and answers come in steps of 25 bytes."""

    def solve(budget):
        rank = budget // 25
        return Schedule((rank,), float(rank), 25 * rank)

    found, peak = search(lambda one: one.predicted_bytes + 30 * any(one.ranks), solve, 100, 0)
    assert found.ranks == (2,)
    assert peak == 80


def test_a_search_whose_answers_repeat_ends():
    """The steps are too coarse for the correction to change the answer at once."""

    def solve(budget):
        rank = min(budget // 40, 2)
        return Schedule((rank,), float(rank), 40 * rank)

    found, peak = search(lambda one: one.predicted_bytes + 21 * any(one.ranks), solve, 100, 0)
    assert (found.ranks, peak) == ((1,), 61)
