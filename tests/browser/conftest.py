"""The app as its own process, and visitors with browsers of their own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[2]
BUSY = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # so many want each core: all takes as many times longer
# What Gradio's own client says of an answer that a reload cut off: by its reader, by its close(), and where a slow
# machine still owes it.
CUT_OFF = ("BodyStreamBuffer was aborted", "signal is aborted without reason", "Connection errored out")
PATIENCE = 180_000 * BUSY  # milliseconds that a plan may take


def pytest_collection_modifyitems(items):
    if CHROMIUM is None:
        skip = pytest.mark.skip(reason="no chromium: apt-get install chromium")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


def unnamed(page):
    """The controls of the page that a screen reader could not name."""
    kinds = "button|textbox|checkbox|radio|slider|spinbutton|combobox|tab|link"
    lines = page.locator("body").aria_snapshot().splitlines()
    return [line for line in lines if re.match(rf"\s*- '?({kinds})\b(?! \")", line)]


class App:
    """A running `taskit app`; `command` is how that TaskIT is called."""

    def __init__(self, runs, env, command=(sys.executable, "-m", "taskit"), cwd=ROOT):
        self.command, self.cwd = command, cwd
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.runs, self.env, self.log = runs, env, runs.parent / "app.log"
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        words = [*self.command, "app", "--port", str(self.port), "--runs", str(self.runs)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **self.env}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, cwd=self.cwd, env=environment, stdout=log, stderr=log)
        patience = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < patience:
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.2)
        raise AssertionError(f"the app did not start: {self.log.read_text()}")

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(30)


@contextmanager
def serving(folder, env=(), **how):
    app = App(folder / "runs", dict(env), **how)
    try:
        yield app
    finally:
        app.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("app")) as one:
        yield one


@pytest.fixture(scope="module")  # Playwright's event loop must end with its file: others need asyncio.run
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def own_complaints(complaints):
    """What a console said but for Gradio's words on what a reload cut off."""
    return [said for said in complaints if not any(words in said for words in CUT_OFF)]


@pytest.fixture
def visit(chromium):
    """A function that opens a page as a new visitor; at the end no error may stand in any console.

    ``console=False`` where something has to: the app is killed, or Gradio on a Space asks huggingface.co.
    """
    contexts, complaints = [], []

    def open_page(url, console=True, **options):
        context = chromium.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        if console:
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.get_by_text("Learned tasks").first.wait_for()
        page.locator(".card table.plain").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert own_complaints(complaints) == [], "\n".join(complaints)
