"""Sign in through OpenID as on a Space, find one's runs, and push one to a local hub."""

import shutil

import pytest

from tests.browser.conftest import serving
from tests.browser.provider import Provider

pytestmark = pytest.mark.slow


@pytest.fixture
def provider(hub):
    one = Provider("ada", hub.add_account("ada"))
    yield one
    one.close()


def test_who_signs_in_pushes_with_his_own_token(hub, lab, provider, visit, tmp_path):
    shutil.copytree(lab.topics, tmp_path / "runs" / "hf-ada" / "topics-1")
    with serving(tmp_path, {**provider.env, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint}) as app:
        page = visit(app.url, console=False)
        page.get_by_role("tab", name="Runs").click()
        page.get_by_text("No runs yet").wait_for()  # a guest's
        page.get_by_role("button", name="Sign in with Hugging Face").click()
        page.get_by_role("button", name="Logout (ada)").wait_for()
        assert provider.scopes == ["openid", "profile", "contribute-repos", "jobs"]
        page.get_by_role("tab", name="Result").click()
        page.get_by_label("Name", exact=True).fill("bob/topics")
        page.get_by_role("button", name="Push to the Hub").click()
        page.locator(".notice.error:visible").wait_for()
        assert hub.state.repos.keys() == {("model", repo.id) for repo in lab.repos}
        page.get_by_label("Name", exact=True).fill("ada/topics")
        page.get_by_role("button", name="Preview the card").click()
        page.get_by_text("What would be published").wait_for()
        page.get_by_role("heading", name="Memory", exact=True).wait_for()  # of the card
        assert ("model", "ada/topics") not in hub.state.repos
        page.get_by_role("button", name="Push to the Hub").click()
        page.get_by_role("link", name="ada/topics").wait_for()
        repo = hub.state.repos["model", "ada/topics"]
        assert repo.private
        assert provider.token not in app.log.read_text()
        assert not [
            path for path in app.runs.rglob("*") if path.is_file() and provider.token.encode() in path.read_bytes()
        ]
