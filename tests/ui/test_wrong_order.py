"""Whatever is pressed before its time, twice, or about another's run has an answer in the page: one sentence."""

import re
from types import SimpleNamespace

import gradio as gr
import pytest

from taskit.planning.recipe import Recipe
from taskit.training.run_folder import RunFolder
from taskit.ui import plan_step
from taskit.ui.data_step import look_at_upload
from taskit.ui.page import Checked
from taskit.ui.plan_step import forget, open_plan, pick_card, redraw, rehearse_plan, turn, weigh
from taskit.ui.result_step import Results
from taskit.ui.runs_step import History
from taskit.ui.shelf import Shelf
from taskit.ui.sketch import sketch
from taskit.ui.train_step import Watch
from tests.ui.world import AUTO, make_outlook

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
        (lambda: turn(ANN, None, None, "tiny", None, 60, "by the slider", *FIELDS), "no plan to change"),
        (lambda: weigh(None, None), "no plan yet"),
        (lambda: rehearse_plan(None, None), "no plan to change"),
        (lambda: look_at_upload(None), "no file any more"),
    ],
)
def test_before_there_is_anything(press, says):
    assert says in sentence_of(press())


def test_a_field_that_was_emptied():
    made = sketch(make_outlook())
    answers = turn(ANN, made, Checked("x.csv", (), ""), "tiny", None, 60, "by the slider", None, *FIELDS[1:])
    assert "fill them in" in sentence_of(answers)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


@pytest.mark.parametrize(
    ("press", "says"),
    [
        (lambda shelf: Watch(shelf).train(None, None, ANN), "no plan to change"),
        (lambda shelf: Watch(shelf).stop("gone-1", ANN), "no run called gone-1"),
        (lambda shelf: Watch(shelf).resume("gone-1", ANN), "no run called gone-1"),
        (lambda shelf: Results(shelf).ask("gone-1", None, "words", ANN), "no run called gone-1"),
        (lambda shelf: Results(shelf).pack(None, ANN), "no run called (none)"),
        (lambda shelf: Results(shelf).preview("gone-1", "a/b", "hf_x", ANN), "no run called gone-1"),
        (lambda shelf: History(shelf).open(None, ANN), "no run called (none)"),
        (lambda shelf: History(shelf).delete("gone-1", None, ANN), "no run called gone-1"),
    ],
)
def test_about_a_run_that_is_gone(press, says, shelf):
    assert says in sentence_of(press(shelf))


def test_a_push_without_an_account_keeps_the_run(shelf):
    said, field = Results(shelf).push("gone-1", "ann/x", True, "", ANN)
    assert "paste a token with write access" in sentence_of([said])
    assert field == ""


def test_a_finished_run_is_neither_stopped_nor_read_by_another(shelf):
    name = "topics-1"
    done = RunFolder(shelf.root / "ann" / name)
    done.reserve()
    done.set_state("done")
    assert "only a running one can be stopped" in sentence_of(Watch(shelf).stop(name, ANN))
    assert "no run called" in sentence_of(Watch(shelf).stop(name, NOBODY))


def test_another_model_or_other_data_takes_the_plan_away():
    none, chosen, view, controls, actions, tab = forget(Checked("x.csv", (), ""))
    assert none is chosen is None
    assert "to be made anew" in view
    assert not controls.visible
    assert not actions.visible
    assert tab["interactive"]
    assert not forget(None)[-1]["interactive"]


def test_epochs_alone_do_not_look_into_the_task_again(monkeypatch):
    made = sketch(make_outlook())
    monkeypatch.setattr(plan_step, "look_into", None)  # calling it would fail
    fields = (Recipe().batch_size, None, 3, 1e-3, "adamw", "none", AUTO, "taskit")
    _, after, *_ = turn(ANN, made, Checked("x.csv", (), ""), "tiny", None, 60, "by the slider", *fields)
    assert (after.outlook.recipe.epochs, after.outlook.pricing) == (3, made.outlook.pricing)
