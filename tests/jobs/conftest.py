"""One small plan for all tests of Jobs, and its user on the local hub."""

import pytest

from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from tests.world import write_bert, write_topics


@pytest.fixture(scope="session")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    base, data = write_bert(folder / "bert"), write_topics(folder / "topics.csv", rows=60)
    return make_plan(data, str(base), "60%", recipe=Recipe(epochs=2, batch_size=8, learning_rate=5e-3))


@pytest.fixture
def token(hub, monkeypatch):
    """Ann is logged in."""
    mine = hub.add_account("ann")
    monkeypatch.setenv("HF_TOKEN", mine)
    return mine
