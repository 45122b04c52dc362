"""Step 2: the visitor's data or an example that comes with the app, checked before anything is planned."""

from pathlib import Path
from typing import Any

import gradio as gr

from taskit.data import load, write_digits
from taskit.data.columns import ROLES
from taskit.data.sources import PREFIX, READERS
from taskit.data.tables import read_table
from taskit.errors import DataError, TaskITError
from taskit.ui.decorators import report_errors
from taskit.ui.markup import empty
from taskit.ui.page import DATA, PLAN, Checked, Page, tab
from taskit.ui.samples import data_view

EXAMPLES = ("handwritten digits (images)", "requests to a shop (text)")  # to try with one click, without a network
MAX_UPLOAD = "2 GB"  # Gradio refuses what is larger, in the browser already
NAMED = tuple(role for role in ROLES if role != "image")  # roles that can be given to a column of a table by hand
NOTHING = empty(
    "No data yet",
    "A zip with a folder of images for each class, or a table (csv, tsv, json, jsonl, parquet) with a label column.",
)


def data_step(page: Page) -> gr.Button:
    """Draw the step and wire it; returns the button that leads to the plan."""
    with gr.Column(elem_classes="box"):
        gr.HTML("<h3>Your data</h3><p class='hint'>It stays on this machine, in a folder of your own.</p>",
                elem_classes="bare")  # fmt: skip
        with gr.Row():
            upload = gr.File(
                label=f"Upload a zip or a table, up to {MAX_UPLOAD}",
                file_types=[*READERS, ".zip"],
                scale=3,
                height=150,
                elem_classes="drop",
            )
            with gr.Column(scale=2):
                hub = gr.Textbox(label="Or a dataset of the Hub", placeholder="OWNER/NAME")
                tries = [(name, gr.Button(f"Try it: {name}", size="sm")) for name in EXAMPLES]
        with gr.Accordion("Name the columns yourself", open=False, visible=False) as naming, gr.Row():
            pickers = [gr.Dropdown([], label=role, value=None, min_width=140) for role in NAMED]
        note = gr.HTML(elem_classes="bare")
    view = gr.HTML(NOTHING, elem_classes=["bare", "waiting"])
    forward = gr.Button("Next: budget and plan", variant="primary", interactive=False)
    outputs = [note, view, page.checked, page.steps[DATA], page.steps[PLAN], forward]
    options: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_limit": 2,
        "concurrency_id": "reading",
        "show_progress_on": view,
    }
    fields = [naming, *pickers]
    upload.upload(columns_to_name, upload, fields, **options).then(look_at_upload, upload, outputs, **options)
    hub.submit(look_at_hub, hub, outputs, **options)
    for name, button in tries:
        button.click(look_at_example, [gr.State(name), gr.State(page.root)], outputs, **options)
    for picker in pickers:
        picker.input(look_at_upload, [upload, *pickers], outputs, **options)
    return forward


@report_errors(outputs=5)
def look_at_upload(path: str | None, *columns: str | None) -> tuple:
    if not path:
        raise DataError("There is no file any more; upload one.")
    return look(path, {role: name for role, name in zip(NAMED, columns, strict=False) if name})


@report_errors(outputs=5)
def look_at_hub(name: str) -> tuple:
    return look(PREFIX + name.strip().removeprefix(PREFIX), {})


@report_errors(outputs=5)
def look_at_example(name: str, root: Path) -> tuple:
    return look(str(example(name, root)), {})


def look(source: str, columns: dict[str, str]) -> tuple:
    """Read, check and show a dataset; what the next step needs of it goes into `Checked`."""
    data = load(source, columns=columns or None)
    info = data.info
    what = "images" if info.modality == "image" else "rows"
    summary = f"{info.train_rows + info.eval_rows:,} {what}" + (
        f" · {len(info.labels)} classes" if info.labels else ""
    )
    checked = Checked(source, tuple(columns.items()), summary)
    return data_view(data), checked, tab(DATA, summary, done=True), tab(PLAN), gr.Button(interactive=True)


def example(name: str, root: Path) -> Path:
    """The path of an example; the digits are written below ``root``, so that a run can resume after a restart."""
    if name == EXAMPLES[0]:
        return write_digits(root / "examples" / "digits")
    return Path(__file__).with_name("requests.csv")


def columns_to_name(path: str) -> tuple:
    """The pickers of the column roles, filled where the upload is a table that can be read."""
    try:
        columns = list(read_table(Path(path)).frame.columns) if Path(path).suffix.lower() in READERS else []
    except TaskITError:  # reported by look_at_upload
        columns = []
    choices = [gr.Dropdown(choices=["", *columns], value=None) for _ in NAMED]
    return gr.Accordion(visible=bool(columns)), *choices
