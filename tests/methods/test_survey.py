"""One survey serves every method as if each had looked at the task by itself."""

import pytest

from taskit import survey as room
from taskit.budget import parse_budget
from taskit.methods import METHODS
from taskit.methods.method import read_options
from taskit.outlook import prepare, settle
from taskit.planning import decide
from taskit.survey import break_ground, surveyed
from taskit.training.recipe import Recipe

RECIPE, BUDGET = Recipe(epochs=2, batch_size=8), parse_budget("100%")


@pytest.fixture(scope="module")
def survey(world):
    ground = break_ground(world / "topics.csv", str(world / "bert"), RECIPE)
    with surveyed(ground, zoo=world / "zoo") as found:
        yield found


@pytest.mark.parametrize("name", METHODS)
def test_a_plan_is_the_same_whoever_looked_before(world, survey, name):
    method = METHODS[name]
    shared = decide(settle(survey, method, read_options(method, {})), BUDGET)
    own = prepare(world / "topics.csv", str(world / "bert"), zoo=world / "zoo", recipe=RECIPE, method=name)
    assert shared == decide(own, BUDGET)


@pytest.mark.parametrize(("name", "needless"), [("soup", "weigh"), ("taskit", "glance")])
def test_nothing_is_measured_that_the_method_does_not_ask_for(world, monkeypatch, name, needless):
    def refuse(*_, **__):
        raise AssertionError(f"{needless} was called")

    monkeypatch.setattr(room, needless, refuse)
    settled = prepare(world / "topics.csv", str(world / "bert"), zoo=world / "zoo", recipe=RECIPE, method=name)
    assert len(settled.similarity) == 2
