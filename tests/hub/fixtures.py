"""The local hub, and huggingface_hub allowed to go online to it alone."""

import time
from contextlib import contextmanager

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.hub.address import ENDPOINT, LISTENER
from tests.hub.server import LocalHub
from tests.hub.world import open_lab


@pytest.fixture(scope="session")
def running_hub(tmp_path_factory):
    hub = LocalHub(tmp_path_factory.mktemp("xet"), LISTENER)
    assert hub.endpoint == ENDPOINT == constants.ENDPOINT
    yield hub
    hub.close()


@contextmanager
def online(home):
    """Online for a while, with caches of its own and without Xet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HOME", str(home))
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        patch.delenv("HF_TOKEN", raising=False)
        yield
    huggingface_hub.close_session()


@pytest.fixture
def hub(running_hub, tmp_path):
    """An empty hub without Xet; this test alone is online and has its own caches."""
    running_hub.reset()
    with online(tmp_path / "hf-home"):
        yield running_hub


@pytest.fixture(scope="session")
def opened_lab(running_hub, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("lab")
    running_hub.reset()
    with online(scratch / "hf-home"):
        return open_lab(running_hub, scratch)


@pytest.fixture
def lab(opened_lab, hub):
    """Two finished runs, on backbones that this test's hub has."""
    opened_lab.join(hub)
    return opened_lab


@pytest.fixture(params=["lfs", "xet"])
def either_hub(request, hub, monkeypatch):
    """The hub without and with Xet."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return hub


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client would have slept, which it now does not."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept
