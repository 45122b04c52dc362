"""One small world and one plan for all tests of training."""

import pytest

from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.training.trainer import train
from tests.world import write_bert, write_topics

RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=5e-3)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_bert(folder / "bert")
    write_topics(folder / "topics.csv")
    return folder


@pytest.fixture(scope="session")
def plan(world):
    return make_plan(world / "topics.csv", str(world / "bert"), "60%", recipe=RECIPE)


@pytest.fixture(scope="session")
def run(plan, tmp_path_factory):
    """One whole run: its folder, its result, its events."""
    events, folder = [], tmp_path_factory.mktemp("runs") / "run"
    return folder, train(plan, folder, watch=events.append), events
