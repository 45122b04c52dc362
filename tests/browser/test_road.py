"""Visitors in a real Chromium: the whole road, reloads, a killed app, two at once, bad uploads."""

import signal

import pytest

from tests.browser.conftest import PATIENCE, own_complaints, serving, unnamed
from tests.data.conftest import csv_text, image_files, png, write_zip
from tests.data.test_bad_input import FILES

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=PATIENCE)


def button(page, name):
    return page.get_by_role("button", name=name)


def give(page, path):
    """Go to the data step and upload a file."""
    page.get_by_role("tab", name="Data").click()
    page.locator("input[type=file]").first.set_input_files(path)


def plan(page, path, epochs):
    give(page, path)
    expect(button(page, "Next: budget and plan")).to_be_enabled()
    button(page, "Next: budget and plan").click()
    page.locator("table.heat").wait_for()
    button(page, "Other levers").click()
    page.get_by_label("Epochs").fill(str(epochs))
    page.get_by_label("Epochs").press("Tab")
    button(page, "Apply, and see").click()
    page.get_by_text("What the levers did").wait_for()


def train(page):
    button(page, "Train this plan").click()
    page.get_by_role("progressbar").wait_for()


def runs_of(app):
    return sorted(path.parent.name for path in app.runs.glob("*/*/state.json"))


@pytest.fixture
def photos(tmp_path):
    return write_zip(tmp_path / "photos.zip", image_files(12))


def test_photos_from_upload_to_prediction_with_a_reload_in_between(app, visit, photos, tmp_path):
    page = visit(app.url)
    assert unnamed(page) == []
    plan(page, photos, epochs=2)
    assert unnamed(page) == []
    before = page.locator("table.heat").inner_html()
    page.get_by_label("Budget, %").first.fill("20")
    page.get_by_label("Budget, %").first.press("Tab")
    page.wait_for_function("old => document.querySelector('table.heat').innerHTML != old", arg=before)
    train(page)
    page.reload()
    page.get_by_role("progressbar").wait_for()  # found again, and its step is open
    button(page, "See the result").click()
    page.get_by_text("Before and after").wait_for()
    (tmp_path / "one.png").write_bytes(png(1))
    page.locator("input[type=file]:visible, [role=tabpanel] input[type=file]").last.set_input_files(
        tmp_path / "one.png"
    )
    page.locator("[role=tabpanel] img[src*='one']").wait_for()
    button(page, "Ask the adapter").click()
    page.get_by_text("without the LoRA", exact=True).wait_for()
    assert page.get_by_text("probability").count() == 2
    assert page.locator("table.confusion").is_visible()
    assert unnamed(page) == []


def test_a_table_is_stopped_killed_with_its_app_and_goes_on(visit, tmp_path):
    (tmp_path / "words.csv").write_text(csv_text(40))
    with serving(tmp_path) as app:
        page = visit(app.url, console=False)
        page.get_by_label("Model", exact=True).fill("sentence-transformers/all-MiniLM-L6-v2")
        page.get_by_label("Model", exact=True).press("Enter")
        page.get_by_text("banking77").first.wait_for()
        plan(page, tmp_path / "words.csv", epochs=1000)  # more than it is given time for
        train(page)
        page.locator(".figures").get_by_text(" of ").wait_for()
        button(page, "Stop and save").click()
        button(page, "Go on").wait_for()
        button(page, "Go on").click()
        button(page, "Stop and save").wait_for()
        app.stop(signal.SIGKILL)
        app.start()  # the run is a process of its own and did not notice
        again = visit_again(page, app.url)
        again.get_by_role("progressbar").wait_for()
        button(again, "Stop and save").click()
        button(again, "Go on").wait_for()


def visit_again(page, url):
    """The same visitor, with the cookie of before, on a new page."""
    context = page.context
    page.close()
    new = context.new_page()
    new.goto(url)
    return new


def test_two_visitors_see_only_their_own_runs_and_the_second_waits(app, visit, photos):
    pages = [visit(app.url), visit(app.url)]
    for page in pages:
        plan(page, photos, epochs=40)
    train(pages[0])
    button(pages[1], "Train this plan").click()
    pages[1].get_by_text("waits for its turn").wait_for()
    own = []
    for page in pages:
        page.get_by_role("tab", name="Runs").click()
        page.get_by_text("Your runs").wait_for()
        own.append({row.split()[0] for row in page.locator("table.plain:visible tr").all_inner_texts()[1:]})
    assert not own[0] & own[1]
    assert all(own)
    pages[0].get_by_role("tab", name="Train").click()
    button(pages[0], "Stop and save").click()
    pages[1].get_by_role("tab", name="Train").click()
    pages[1].get_by_role("progressbar").wait_for()  # its turn has come
    button(pages[1], "Stop and save").click()
    button(pages[1], "Go on").wait_for()


@pytest.fixture(scope="module")
def data_page(app, chromium):
    complaints = []
    page = chromium.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(app.url)
    yield page
    page.close()
    assert own_complaints(complaints) == []


def test_an_upload_over_the_limit_is_refused_with_its_name(app, visit, tmp_path):
    page = visit(app.url, console=False)
    assert page.evaluate("window.gradio_config.max_file_size") == 2 * 2**30
    set_limit = "v.max_file_size = 1000; kept = v"
    page.add_init_script(
        f"let kept; Object.defineProperty(window, 'gradio_config', {{set(v) {{{set_limit}}}, get() {{return kept}}}})"
    )
    page.reload()
    (tmp_path / "large.csv").write_text(csv_text(400))
    give(page, tmp_path / "large.csv")
    page.get_by_text("exceed the maximum allowed size").first.wait_for()
    page.get_by_text("large.csv").first.wait_for()
    assert page.get_by_text("No data yet").is_visible()


BAD = {case: one for case, one in FILES.items() if case != "unknown type"}  # which the browser itself refuses


@pytest.mark.parametrize("case", BAD)
def test_a_bad_upload_is_one_sentence_in_the_page(data_page, tmp_path, case):
    name, content, words = BAD[case]
    (tmp_path / name).write_bytes(content)
    data_page.reload()  # with no file of the case before
    data_page.get_by_role("tab", name="Data").click()
    data_page.locator("input[type=file]").first.set_input_files(tmp_path / name)
    notice = data_page.locator("[role=tabpanel]:visible .notice.error")
    for word in words:
        expect(notice).to_contain_text(word)


def test_datasets_are_trained_together(app, visit, tmp_path):
    """Planned in the step of the data, trained as one run, and each with a result of its own."""
    page = visit(app.url)
    page.get_by_role("tab", name="Data").click()
    button(page, "Several datasets").click()
    button(page, "Plan them together").click()
    page.get_by_text("no more than one dataset").wait_for()
    archives = [write_zip(tmp_path / f"{name}.zip", image_files(12)) for name in ("photos", "prints")]
    page.locator("[role=tabpanel] input[type=file]").nth(1).set_input_files(archives)
    page.get_by_text("prints").first.wait_for()
    button(page, "Plan them together").click()
    page.get_by_text("photos + prints").first.wait_for()
    assert page.locator("table.heat").is_visible()
    assert unnamed(page) == []
    button(page, "Train them together").click()
    button(page, "See the result").click()
    page.get_by_role("heading", name="Trained together").wait_for()
    rows = page.locator("table.plain:visible tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows[1:]] == ["photos", "prints"]
