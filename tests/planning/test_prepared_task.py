"""A task compared with the zoo once serves every method as if each had compared it by itself."""

import pytest

from taskit.methods import METHODS
from taskit.methods.method import read_options
from taskit.planning import prepared_task
from taskit.planning.budget import parse_budget
from taskit.planning.context import prepare, resolve
from taskit.planning.planner import decide
from taskit.planning.prepared_task import compare_with_zoo, prepare_task
from taskit.planning.recipe import Recipe
from taskit.transfer import probe_context
from taskit.transfer.trial import run_trial

RECIPE, BUDGET = Recipe(epochs=2, batch_size=8), parse_budget("100%")


@pytest.fixture(scope="module")
def compared(world):
    prepared = prepare_task(world / "topics.csv", str(world / "bert"), RECIPE)
    with compare_with_zoo(prepared, zoo=world / "zoo") as found:
        yield found


def options_of(name):
    """The adapters of this world do not say what their data look like."""
    return {"select": "delta"} if name == "soup" else {}


def prepared(world, name):
    choices = {"method": name, "method_options": options_of(name)}
    return prepare(world / "topics.csv", str(world / "bert"), zoo=world / "zoo", recipe=RECIPE, **choices)


@pytest.mark.parametrize("name", ["taskit", "taskit+pi", "taskit+pear", "taskit+cdra", "eva", "soup"])  # every kind
def test_a_plan_is_the_same_whoever_looked_before(world, compared, name):
    shared = decide(resolve(compared, METHODS[name], read_options(METHODS[name], options_of(name))), BUDGET)
    assert shared == decide(prepared(world, name), BUDGET)


@pytest.mark.parametrize(("name", "needless"), [("soup", "measure_with_trial"), ("taskit", "measure_forward_only")])
def test_nothing_is_measured_that_the_method_does_not_ask_for(world, monkeypatch, name, needless):
    def refuse(*_, **__):
        raise AssertionError(f"{needless} was called")

    monkeypatch.setattr(prepared_task, needless, refuse)
    assert len(prepared(world, name).similarity) == 2


def test_one_trial_serves_importance_and_the_embeddings_of_pi(world, monkeypatch):
    made = []

    def count(*what):
        made.append(1)
        return run_trial(*what)

    monkeypatch.setattr(probe_context, "run_trial", count)
    prepared(world, "taskit+pi")
    assert len(made) == 1


def test_texts_of_like_length_share_a_batch_and_none_is_lost(world, monkeypatch):
    monkeypatch.setattr(prepared_task, "PROBE_ROWS", 16)
    prepared = prepare_task(world / "topics.csv", str(world / "bert"), RECIPE)
    with compare_with_zoo(prepared, zoo=world / "zoo") as found:
        batches = found.probe_context.rows
        probed = sum(len(probe.x) for probe in found.probe_context.probes)
    lengths = [batch["attention_mask"].sum(1) for batch in batches]
    assert (probed, sum(map(len, lengths))) == (16, len(prepared.data.train))
    rows = sorted(str(row[row > 0].tolist()) for batch in batches for row in batch["input_ids"])
    whole = prepared.collator(list(prepared.data.train))
    assert rows == sorted(str(row[row > 0].tolist()) for row in whole["input_ids"])
    cuts = [range(start, min(start + 8, len(prepared.data.train))) for start in range(0, len(prepared.data.train), 8)]
    as_they_come = [prepared.collator([prepared.data.train[i] for i in cut]) for cut in cuts]
    padding = [sum(int((batch["attention_mask"] == 0).sum()) for batch in some) for some in (batches, as_they_come)]
    assert padding[0] < padding[1]
