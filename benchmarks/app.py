"""Claim: the page is interactive within 3 s, the slider redraws within 300 ms, and 20 visitors get their plans.

    python -m benchmarks.app [--visitors 20] [--seeds 0] [--quick] [--out FILE]

Starts the app, opens it in Chromium, moves the slider to 20 positions in an order drawn by a seed, then lets visitors
plan at once through the API and looks at the app's resident memory before, and a minute after.  Times are those of a
person in the browser: from the input to the changed picture.  One plan before the crowd pays for what is loaded once.
Beside each time stand the processor seconds of the app, which a busy machine does not stretch, and the load average.
Needs Debian's chromium.
"""

import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from gradio_client import Client
from playwright.sync_api import Page, sync_playwright

from benchmarks.common import Results, options
from tests.browser.conftest import CHROMIUM, PATIENCE, App

EXAMPLE = "requests to a shop (text)"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MOVES = range(2, 100, 5)
MOVE = """async value => {
    const slider = document.querySelector('input[type=range]')
    const figures = () => document.querySelector('.panels.wide + section .figures').innerText
    const before = figures(), start = performance.now()
    slider.value = value
    slider.dispatchEvent(new Event('input', {bubbles: true}))
    while (figures() == before) {
        if (performance.now() - start > 60000) throw new Error(`the plan did not follow the slider to ${value}`)
        await new Promise(requestAnimationFrame)
    }
    return performance.now() - start
}"""


def opened(page: Page, url: str) -> float:
    """Seconds until the page answers: the learned tasks are listed and the button can be pressed."""
    start = time.perf_counter()
    page.goto(url)
    page.locator("table.plain").first.wait_for()
    page.get_by_role("button", name="Next: your data").click(trial=True)
    return time.perf_counter() - start


def moves(page: Page, seeds: Sequence[int]) -> list[float]:
    """Milliseconds from each move of the slider to the changed figures, all positions once for each seed."""
    page.get_by_role("button", name="Next: your data").click()
    page.get_by_role("button", name="Try it: handwritten").click()
    page.locator(".samples img").first.wait_for(timeout=300_000)
    page.get_by_role("button", name="Next: budget and plan").click()
    page.locator("table.heat").wait_for(timeout=600_000)
    page.wait_for_timeout(1000)
    return [page.evaluate(MOVE, value) for seed in seeds for value in random.Random(seed).sample(MOVES, len(MOVES))]


def crowd(url: str, visitors: int) -> float:
    """Seconds until every visitor has his plan."""

    def one(_: int) -> bool:
        plan = Client(url, verbose=False).predict(EXAMPLE, backbone=MINILM, epochs=1, api_name="/plan")
        return plan["memory"]["peak_bytes"] <= plan["budget_bytes"]

    start = time.perf_counter()
    with ThreadPoolExecutor(visitors) as threads:
        assert all(threads.map(one, range(visitors)))
    return time.perf_counter() - start


class Meter:
    """Processor seconds and resident bytes of the app."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.spent = process, {}

    def seconds(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        start = self.seconds()
        yield
        self.spent[part] = round(self.seconds() - start, 2)

    @property
    def bytes(self) -> int:
        return self.process.memory_info().rss


def in_browser(url: str, meter: Meter, seeds: Sequence[int]) -> dict[str, Any]:
    """What one person waits for."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with meter.during("two pages"):
            first, second = (opened(browser.new_page(), url) for _ in range(2))
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        opened(page, url)
        with meter.during("data, plan and all moves of the slider"):
            redraws = sorted(moves(page, seeds))
        browser.close()
    return {
        "seconds_until_interactive": [round(first, 2), round(second, 2)],
        "redraw_ms_median": round(statistics.median(redraws)),
        "redraw_ms_p95": round(redraws[int(0.95 * (len(redraws) - 1))]),
    }


def measured(visitors: int, seeds: Sequence[int]) -> dict[str, Any]:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        app = App(Path(folder, "runs"), {})
        try:
            meter = Meter(psutil.Process(app.process.pid))
            seen = in_browser(app.url, meter, seeds)
            with meter.during("warming up: one plan"):
                crowd(app.url, 1)
            before = meter.bytes
            with meter.during("the plans of all visitors"):
                waited = crowd(app.url, visitors)
            peak = meter.bytes
            time.sleep(60)
            after = meter.bytes
        finally:
            app.stop()
    return {
        "load_average": [round(load, 1), round(os.getloadavg()[0], 1)],
        **seen,
        "visitors": visitors,
        "seconds_until_all_have_plans": round(waited, 1),
        "rss_bytes": {"before": before, "with the plans": peak, "a minute later": after},
        "app_cpu_seconds": meter.spent,
    }


def main() -> None:
    parser = options("app", __doc__, quick="two visitors", seeds=(0,))
    parser.add_argument("--visitors", type=int, default=20)
    chosen = parser.parse_args()
    visitors = 2 if chosen.quick else chosen.visitors
    results = Results(parser, chosen, visitors=visitors, seeds=chosen.seeds)
    if "visitors" not in results.found:
        results.put(**measured(visitors, chosen.seeds))
    for name, value in results.found.items():
        print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
