"""Sign in through OpenID as on a Space: push a run to a local hub, rent a machine of a local service."""

import shutil

import pytest

from tests.browser.conftest import serving
from tests.browser.provider import Provider
from tests.browser.test_road import button, give
from tests.hub.faults import Fault
from tests.hub.world import BASE
from tests.world import write_topics

pytestmark = pytest.mark.slow


@pytest.fixture
def provider(hub):
    one = Provider("ada", hub.add_account("ada"))
    yield one
    one.close()


@pytest.fixture
def space(hub, provider, tmp_path):
    """A function that serves the app as a Space does; nothing of it is left on the disk that could spend a token."""
    env = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    with serving(tmp_path, {**provider.env, **env, "HF_HUB_DISABLE_XET": "1"}) as app:
        yield app
        assert provider.token not in app.log.read_text()
        kept = [path for path in app.runs.rglob("*") if path.is_file()]
        assert not [path for path in kept if provider.token.encode() in path.read_bytes()]


def sign_in(page):
    button(page, "Sign in with Hugging Face").click()
    button(page, "Logout (ada)").wait_for()


def test_who_signs_in_pushes_with_his_own_token(hub, lab, provider, visit, space):
    shutil.copytree(lab.topics, space.runs / "hf-ada" / "topics-1")
    page = visit(space.url, console=False)
    page.get_by_role("tab", name="Runs").click()
    page.get_by_text("No runs yet").wait_for()  # a guest's
    sign_in(page)
    assert provider.scopes == ["openid", "profile", "contribute-repos", "jobs"]
    page.get_by_role("tab", name="Result").click()
    page.get_by_label("Name", exact=True).fill("bob/topics")
    button(page, "Push to the Hub").click()
    page.locator(".notice.error:visible").wait_for()
    assert hub.state.repos.keys() == {("model", repo.id) for repo in lab.repos}
    page.get_by_label("Name", exact=True).fill("ada/topics")
    button(page, "Preview the card").click()
    page.get_by_text("What would be published").wait_for()
    page.get_by_role("heading", name="Memory", exact=True).wait_for()  # of the card
    assert ("model", "ada/topics") not in hub.state.repos
    button(page, "Push to the Hub").click()
    page.get_by_role("link", name="ada/topics").wait_for()
    assert hub.state.repos["model", "ada/topics"].private


@pytest.mark.usefixtures("lab")
def test_who_signs_in_rents_a_machine_at_a_price_and_finds_the_run_again(hub, provider, visit, space, tmp_path):
    hub.faults.append(Fault("stall", "POST /api/datasets/.*/commit/", skip=1))  # the Job waits there to be stopped
    page = visit(space.url, console=False)
    sign_in(page)
    page.get_by_label("Model", exact=True).fill(BASE)
    page.get_by_label("Model", exact=True).press("Enter")
    page.get_by_text("Nobody has shared an adapter").wait_for()
    give(page, write_topics(tmp_path / "topics.csv", rows=60))
    button(page, "Next: budget and plan").click()
    page.locator("table.heat").wait_for()
    button(page, "Rent a bigger machine").click()
    button(page, "Show machines and prices").click()
    page.get_by_label("Machine", exact=True).click()
    page.get_by_role("option", name="cpu-basic").click()
    page.get_by_text("costs at most").wait_for()
    assert not hub.state.jobs
    button(page, "Start it: less than 1 cent at most").click()
    page.get_by_text("cpu-basic at Hugging Face").wait_for()
    (job,) = hub.state.jobs.values()
    assert job.spec["secrets"] == {"HF_TOKEN": provider.token}
    page.reload()
    page.get_by_text("cpu-basic at Hugging Face").wait_for()
    button(page, "Stop and save").click()
    button(page, "Go on").wait_for()
    assert job.stage == "CANCELED"
