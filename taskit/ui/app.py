"""The page: a heading, the stepper, and the server that shows them."""

from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from taskit.ui.api import api
from taskit.ui.data_step import MAX_UPLOAD, data_step
from taskit.ui.model_step import model_step
from taskit.ui.page import DATA, MODEL, PLAN, RESULT, RUNS, TRAIN, Page, label
from taskit.ui.plan_step import plan_step
from taskit.ui.push import sign_in
from taskit.ui.result_step import result_step
from taskit.ui.run_store import RunStore
from taskit.ui.runs_step import runs_step
from taskit.ui.theme import STYLE, make_theme
from taskit.ui.together_box import together_box
from taskit.ui.train_step import train_step
from taskit.ui.visitors import VisitorCookie, read_secret

SESSIONS = 200  # kept at most: Gradio never drops a session of the API by itself
HEADING = '<div class="title"><h1>TaskIT</h1><p>Fine-tune inside your memory. See why.</p></div>'


def build(run_store: RunStore) -> gr.Blocks:
    """The whole app over the runs of a run store."""
    with gr.Blocks(
        title="TaskIT", analytics_enabled=False, fill_width=True, delete_cache=(3600, 24 * 3600)
    ) as blocks:
        api(run_store)  # before the handlers of the page, one of which would take a name otherwise
        with gr.Row(elem_classes="heading"):
            gr.HTML(HEADING, elem_classes="bare")
            sign_in()
        with gr.Tabs(elem_classes="steps", selected=MODEL) as tabs:
            steps = tuple(
                gr.Tab(label(step), id=step, interactive=step not in (PLAN, RESULT)) for step in range(RUNS + 1)
            )
        page = Page(blocks, run_store.root, tabs, steps, *(gr.State(None) for _ in range(6)))
        with steps[MODEL]:
            model_step(page)
        with steps[DATA]:
            forward = data_step(page)
            together_box(page, run_store)
        with steps[PLAN]:
            train, elsewhere, note = plan_step(page, forward)
        with steps[TRAIN]:
            train_step(page, run_store, train, elsewhere, note)
        with steps[RESULT]:
            result_step(page, run_store)
        with steps[RUNS]:
            runs_step(page, run_store)
    return blocks


def launch(host: str, port: int, runs: str | Path) -> None:
    """Serve the app until it is interrupted."""
    root = Path(runs).resolve()
    secret = read_secret(root)
    run_store = RunStore(root)
    blocks = build(run_store)
    run_store.watch()
    blocks.queue(default_concurrency_limit=4, max_size=200)
    blocks.launch(
        server_name=host,
        server_port=port,
        theme=make_theme(),
        css_paths=STYLE,
        max_file_size=MAX_UPLOAD,
        app_kwargs={"middleware": [Middleware(VisitorCookie, secret=secret)]},
        footer_links=["api"],
        mcp_server=True,
        ssr_mode=False,
        state_session_capacity=SESSIONS,
        quiet=True,
        show_error=False,
    )
