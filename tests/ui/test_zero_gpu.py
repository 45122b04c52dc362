"""On ZeroGPU the planning runs in another process: all that crosses the border can be pickled."""

import pickle
import sys
from types import ModuleType

import gradio as gr
import pytest

from taskit.errors import BackboneError
from taskit.planning.recipe import Recipe
from taskit.ui.decorators import GPU_SECONDS, run_on_zero_gpu
from taskit.ui.frontier_view import at_percent
from taskit.ui.plan_step import _compute_frontier
from tests.world import write_bert, write_topics


@pytest.fixture
def zero_gpu(monkeypatch):
    """Stands for the package of a Space: arguments and answers are pickled, and the durations noted."""
    durations = []

    def decorator(duration):
        durations.append(duration)

        def decorate(function):
            return lambda *given: pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(given)))))

        return decorate

    spaces = ModuleType("spaces")
    spaces.GPU = decorator
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    return durations


def test_without_the_package_nothing_is_decorated(monkeypatch):
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert run_on_zero_gpu(len) is len


def test_a_task_is_looked_into_on_the_lent_gpu(zero_gpu, tmp_path):
    decorated = run_on_zero_gpu(_compute_frontier)
    assert zero_gpu == [GPU_SECONDS]
    data, nothing = write_topics(tmp_path / "topics.csv", rows=40), tmp_path / "nothing"
    nothing.mkdir()
    options = {"zoo": nothing, "recipe": Recipe(batch_size=4)}
    made = decorated(str(data), str(write_bert(tmp_path / "bert")), options, gr.Progress())
    plan = made.draft(at_percent(60))
    assert made.context.step_spec.rehearse(tuple(plan.ranks.values())) > 0


@pytest.mark.usefixtures("zero_gpu")
def test_what_was_wrong_comes_back(tmp_path):
    error = run_on_zero_gpu(_compute_frontier)(
        str(write_topics(tmp_path / "topics.csv")), "nobody/none", {}, gr.Progress()
    )
    assert isinstance(error, BackboneError)
