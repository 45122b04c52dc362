"""What a lever is said to do is what planning with it turned would find."""

from dataclasses import replace

import pytest

from taskit.backbone.processors import make_collator
from taskit.backbone.sources import find_backbone
from taskit.data import load
from taskit.planning.budget import Budget
from taskit.planning.context import prepare
from taskit.planning.levers import BATCH, CHECKPOINTING, LENGTH, QUANTIZATION, effects
from taskit.planning.planner import decide
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import build_step_spec
from tests.world import write_bert, write_topics

RECIPE = Recipe(batch_size=8, micro_batch=8, gradient_checkpointing=False)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("levers")
    (folder / "nothing").mkdir()
    data = write_topics(folder / "topics.csv", rows=48)
    return data, prepare(data, str(write_bert(folder / "bert")), zoo=folder / "nothing", recipe=RECIPE)


def step_spec_of(data, backbone, recipe, **options):
    backbone = find_backbone(backbone.id, **options)
    read = load(data)
    return build_step_spec(backbone, read, recipe, make_collator(backbone, read.info.task, recipe.max_length))


def test_effects_are_those_of_planning_anew(context):
    data, made = context
    ranks = [4] * len(made.step_spec.locations)
    before = made.step_spec.rehearse(ranks)
    plan = decide(made, Budget("100%", fraction=1.0))
    plan = replace(plan, locations=tuple(replace(place, rank=4) for place in plan.locations))
    found = {(one.lever, one.value): one for one in effects(made, plan)}
    length = next(value for lever, value in found if lever == LENGTH)
    turned = {
        (BATCH, "4"): step_spec_of(data, made.backbone, replace(RECIPE, batch_size=4, micro_batch=4)),
        (LENGTH, length): step_spec_of(data, made.backbone, replace(RECIPE, max_length=int(length))),
        (CHECKPOINTING, "on"): step_spec_of(data, made.backbone, replace(RECIPE, gradient_checkpointing=True)),
        (QUANTIZATION, "8bit"): step_spec_of(data, made.backbone, RECIPE, quantization="8bit"),
        (QUANTIZATION, "4bit"): step_spec_of(data, made.backbone, RECIPE, quantization="4bit"),
    }
    assert found.keys() == turned.keys()
    for lever, step_spec in turned.items():
        assert found[lever].bytes == step_spec.rehearse(ranks) - before, lever
    assert found[BATCH, "4"].bytes < 0
    assert found[LENGTH, length].bytes < 0
