"""A machine at Hugging Face from its price to the end of the run, on a Jobs service that really runs it."""

import re
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from taskit.planning.budget import Budget
from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.ui.frontier_view import frontier_view
from taskit.ui.page import Chosen
from taskit.ui.rent_box import Rent
from taskit.ui.run_store import RunStore
from taskit.ui.runs_step import History
from taskit.ui.train_step import Watch
from tests.hub.faults import Fault
from tests.ui.test_wrong_order import sentence_of
from tests.ui.world import make_context
from tests.world import write_bert, write_topics

VIEW = frontier_view(make_context())  # which a rehearsed plan no longer needs
GUEST = SimpleNamespace(request=SimpleNamespace(scope={"visitor": "guest"}))


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rent")
    base, data = write_bert(folder / "bert"), write_topics(folder / "topics.csv", rows=60)
    plan = make_plan(data, str(base), "60%", recipe=Recipe(epochs=2, batch_size=8))
    return Chosen(Budget("60%", fraction=0.6), plan, rehearsed=True)


@pytest.fixture
def token(hub):
    return hub.add_account("ann")


def signed_in(token, seconds=8 * 3600):
    """A request of Ann's, whose sign-in lasts so long."""
    person = {"preferred_username": "ann"}
    info = {"userinfo": person, "access_token": token, "expires_at": time.time() + seconds}
    return SimpleNamespace(request=SimpleNamespace(scope={"visitor": "guest", "session": {"oauth_info": info}}))


@pytest.fixture
def run_store(tmp_path):
    return RunStore(tmp_path / "runs")


def posted(hub):
    return [line for line in hub.requests if line.startswith("POST")]


def start(run_store, chosen, token):
    """The name of a run that Ann has started on the cheapest machine."""
    rent, ann = Rent(run_store), signed_in(token)
    said, _, offer, *_ = rent.price(VIEW, chosen, "cpu-basic", None, ann)
    assert said == ""
    said, name, *_ = rent.start(offer, chosen, None, ann)
    assert said == ""
    return name


def test_machines_come_with_their_price_and_nothing_is_started_by_asking(run_store, chosen, hub, token):
    rent, ann = Rent(run_store), signed_in(token)
    _, machines = rent.machines(None, ann)
    assert [flavor for _, flavor in machines.choices] == ["cpu-basic", "t4-small"]
    assert [label.rpartition(" · ")[2] for label, _ in machines.choices] == ["$0.01 an hour", "$0.40 an hour"]
    said, kept, offer, view, button = rent.price(VIEW, chosen, "t4-small", None, ann)
    assert said == ""
    assert kept is chosen
    assert offer.quote.most_dollars == pytest.approx(offer.quote.timeout_seconds * 0.4 / 3600, rel=1e-3)
    for words in ("takes about", "costs about", "is ended after", "costs at most"):
        assert words in view
    assert button.value == f"Start it: ${offer.quote.most_dollars:.2f} at most"
    assert posted(hub) == []


def test_a_rented_run_is_followed_stopped_and_deleted_with_the_visitors_token(run_store, chosen, hub, token):
    name, ann = start(run_store, chosen, token), signed_in(token)
    (job,) = hub.state.jobs.values()
    assert job.spec["secrets"] == {"HF_TOKEN": token}
    assert run_store.live() == [], "it takes no slot of this machine"
    view, stop, *_ = Watch(run_store).look(name, ann)
    assert "cpu-basic at Hugging Face" in view
    assert stop.visible
    assert [run.path.name for run in run_store.runs("hf-ann")] == [name]
    assert Watch(run_store).stop(name, ann) == ("",)
    assert job.stage == "CANCELED"
    run_store.rentals.refresh()
    assert run_store.find("hf-ann", name).state.name == "stopped"
    for path in run_store.root.rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes(), path
    assert History(run_store).delete(name, name, ann) == ("", None)
    assert run_store.runs("hf-ann") == []
    assert not hub.state.repos


def test_after_a_restart_the_run_is_found_and_waits_for_its_token(run_store, chosen, hub, token):
    name = start(run_store, chosen, token)
    run_store.root.joinpath("hf-ann").rename(run_store.root / "guest")  # of an app without a sign-in
    again = RunStore(run_store.root)
    view, *_, follow, _, _, _ = Watch(again).look(name, GUEST)
    assert "as it was last seen" in view
    assert follow.visible
    assert "give your token" in sentence_of(Watch(again).stop(name, GUEST))
    assert "your own account" in sentence_of(Rent(again).follow(name, "", GUEST))
    assert Rent(again).follow(name, token, GUEST) == ("", "")
    view, *_, follow, _, _, _ = Watch(again).look(name, GUEST)
    assert "as it was last seen" not in view
    assert not follow.visible
    assert Watch(again).stop(name, GUEST) == ("",)
    assert {job.stage for job in hub.state.jobs.values()} == {"CANCELED"}


def test_a_hub_that_does_not_answer_is_said_above_the_run(run_store, chosen, hub, token):
    name, ann = start(run_store, chosen, token), signed_in(token)
    hub.faults.append(Fault(401, "GET /api/jobs/ann/"))
    run_store.rentals.refresh()
    assert "does not accept the token" in Watch(run_store).look(name, ann)[0]
    run_store.rentals.refresh()
    assert "does not accept the token" not in Watch(run_store).look(name, ann)[0]
    Watch(run_store).stop(name, ann)


@pytest.mark.parametrize(
    ("press", "says"),
    [
        (lambda rent, _: rent.machines(" ", GUEST), "your own account"),
        (lambda rent, chosen: rent.price(VIEW, chosen, "t4-small", None, GUEST), "your own account"),
        (lambda rent, _: rent.price(None, None, "t4-small", "hf_x", GUEST), "no plan to change"),
        (lambda rent, chosen: rent.start(None, chosen, "hf_x", GUEST), "no price yet"),
        (lambda rent, _: rent.follow("gone-1", "hf_x", GUEST), "no run called gone-1"),
    ],
)
def test_before_its_time_nothing_is_asked_of_the_hub(press, says, run_store, chosen, hub):
    assert says in sentence_of(press(Rent(run_store), chosen))
    assert hub.requests == []


def test_a_price_is_for_the_plan_that_was_shown_with_it(run_store, chosen, hub, token):
    rent, ann = Rent(run_store), signed_in(token)
    _, _, offer, *_ = rent.price(VIEW, chosen, "cpu-basic", None, ann)
    longer = replace(chosen.plan, training=replace(chosen.plan.training, epochs=99))
    for other in (None, replace(chosen, plan=longer)):
        assert "plan was changed" in sentence_of(rent.start(offer, other, None, ann))
    assert posted(hub) == []


def test_a_sign_in_that_ends_before_the_run_is_said_before_anything_is_paid(run_store, chosen, hub, token):
    rent = Rent(run_store)
    said = sentence_of(rent.price(VIEW, chosen, "cpu-basic", None, signed_in(token, seconds=600)))
    assert re.search(r"ends in (10 min 0 s|9 min \d+ s).*log out and in again", said)
    _, _, offer, *_ = rent.price(VIEW, chosen, "cpu-basic", None, signed_in(token))
    assert "log out and in again" in sentence_of(rent.start(offer, chosen, None, signed_in(token, seconds=600)))
    assert posted(hub) == []


def test_without_credit_nothing_is_left_behind(run_store, chosen, hub, token):
    rent, ann = Rent(run_store), signed_in(token)
    _, _, offer, *_ = rent.price(VIEW, chosen, "cpu-basic", None, ann)
    hub.faults.append(Fault(402, "POST /api/jobs/"))
    assert "has no credit" in sentence_of(rent.start(offer, chosen, None, ann))
    assert run_store.runs("hf-ann") == []
    assert not hub.state.repos
