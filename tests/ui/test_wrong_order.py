"""Whatever is pressed before its time, twice, or about another's run has an answer in the page: one sentence."""

import re
from types import SimpleNamespace

import gradio as gr
import pytest

from taskit.planning.recipe import Recipe
from taskit.training.run_folder import RunFolder
from taskit.ui import plan_step
from taskit.ui.data_step import look_at_upload
from taskit.ui.frontier_view import frontier_view
from taskit.ui.page import Checked
from taskit.ui.plan_step import (
    apply_levers,
    measure_levers,
    open_plan,
    pick_card,
    redraw,
    rehearse_plan,
    reset,
    settle,
)
from taskit.ui.result_step import Results
from taskit.ui.run_store import RunStore
from taskit.ui.runs_step import History
from taskit.ui.train_step import Watch
from tests.ui.world import AUTO, make_context

FIELDS = (16, None, 10, None, "adamw", "none", AUTO, "taskit")
ANN = SimpleNamespace(request=SimpleNamespace(scope={"visitor": "ann"}))
NOBODY = SimpleNamespace(request=SimpleNamespace(scope={"visitor": "bob"}))


def sentence_of(answers):
    """The sentence of a notice, which comes first; the rest of the page stays as it is."""
    words = re.fullmatch(r'<div class="notice error" role="alert">([^<>\n]+\.)</div>', answers[0])
    assert words, answers[0]
    assert all(answer == gr.skip() for answer in answers[1:])
    return words[1]


@pytest.mark.parametrize(
    ("press", "says"),
    [
        (lambda: open_plan(ANN, None, "tiny", None, 60, "by the slider", *FIELDS), "no data to plan for"),
        (lambda: redraw(None, 60), "no plan to change"),
        (lambda: pick_card(None, "8 GB card", 60), "no plan to change"),
        (lambda: apply_levers(ANN, None, None, "tiny", None, 60, "by the slider", *FIELDS), "no plan to change"),
        (lambda: measure_levers(None, None), "no plan yet"),
        (lambda: rehearse_plan(None, None), "no plan to change"),
        (lambda: look_at_upload(None), "no file any more"),
    ],
)
def test_before_there_is_anything(press, says):
    assert says in sentence_of(press())


def test_letting_go_of_the_slider_before_there_is_a_plan_changes_nothing():
    assert settle(None, 60, "by the slider") == (gr.skip(),) * 3


def test_a_field_that_was_emptied():
    made = frontier_view(make_context())
    answers = apply_levers(ANN, made, Checked("x.csv", (), ""), "tiny", None, 60, "by the slider", None, *FIELDS[1:])
    assert "fill them in" in sentence_of(answers)


@pytest.fixture
def run_store(tmp_path):
    return RunStore(tmp_path)


@pytest.mark.parametrize(
    ("press", "says"),
    [
        (lambda run_store: Watch(run_store).train(None, None, ANN), "no plan to change"),
        (lambda run_store: Watch(run_store).stop("gone-1", ANN), "no run called gone-1"),
        (lambda run_store: Watch(run_store).resume("gone-1", ANN), "no run called gone-1"),
        (lambda run_store: Results(run_store).ask("gone-1", None, "words", ANN), "no run called gone-1"),
        (lambda run_store: Results(run_store).pack(None, ANN), "no run called (none)"),
        (lambda run_store: Results(run_store).preview("gone-1", "a/b", "hf_x", ANN), "no run called gone-1"),
        (lambda run_store: History(run_store).open(None, ANN), "no run called (none)"),
        (lambda run_store: History(run_store).delete("gone-1", None, ANN), "no run called gone-1"),
    ],
)
def test_about_a_run_that_is_gone(press, says, run_store):
    assert says in sentence_of(press(run_store))


def test_a_push_without_an_account_keeps_the_run(run_store):
    said, field = Results(run_store).push("gone-1", "ann/x", True, "", ANN)
    assert "paste a token with write access" in sentence_of([said])
    assert field == ""


def test_a_finished_run_is_neither_stopped_nor_read_by_another(run_store):
    name = "topics-1"
    done = RunFolder(run_store.root / "ann" / name)
    done.reserve()
    done.set_state("done")
    assert "only a running one can be stopped" in sentence_of(Watch(run_store).stop(name, ANN))
    assert "no run called" in sentence_of(Watch(run_store).stop(name, NOBODY))


def test_another_model_or_other_data_takes_the_plan_away():
    none, chosen, view, controls, actions, tab = reset(Checked("x.csv", (), ""))
    assert none is chosen is None
    assert "to be made anew" in view
    assert not controls.visible
    assert not actions.visible
    assert tab["interactive"]
    assert not reset(None)[-1]["interactive"]


def test_epochs_alone_do_not_look_into_the_task_again(monkeypatch):
    made = frontier_view(make_context())
    monkeypatch.setattr(plan_step, "compute_frontier", None)  # calling it would fail
    fields = (Recipe().batch_size, None, 3, 1e-3, "adamw", "none", AUTO, "taskit")
    _, after, *_ = apply_levers(ANN, made, Checked("x.csv", (), ""), "tiny", None, 60, "by the slider", *fields)
    assert (after.context.recipe.epochs, after.context.pricing) == (3, made.context.pricing)
