"""The local hub, and huggingface_hub allowed to go online to it alone."""

import time

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.hub.address import ENDPOINT, LISTENER
from tests.hub.server import LocalHub


@pytest.fixture(scope="session")
def running_hub(tmp_path_factory):
    hub = LocalHub(tmp_path_factory.mktemp("xet"), LISTENER)
    assert hub.endpoint == ENDPOINT == constants.ENDPOINT
    yield hub
    hub.close()


@pytest.fixture
def hub(running_hub, tmp_path, monkeypatch):
    """An empty hub without Xet; this test alone is online and has its own caches."""
    running_hub.reset()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-home/hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf-home/token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield running_hub
    huggingface_hub.close_session()


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
