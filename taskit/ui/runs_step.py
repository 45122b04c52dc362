"""Step 6: the visitor's runs."""

from datetime import datetime
from typing import Any

import gradio as gr

from taskit.terminal import show_bytes
from taskit.training.run_folder import LIVE
from taskit.training.runs import Run
from taskit.ui.decorators import report_errors
from taskit.ui.markup import empty, panel, table, text
from taskit.ui.page import RUNS, TRAIN, Page, tab
from taskit.ui.run_store import RunStore, Ticket
from taskit.ui.run_view import STATES
from taskit.ui.visitors import visitor_of

NOTHING = empty("No runs yet", "Every run that you start is kept here, with its plan and its result.")
HINT = "Only you see these. They stay as long as this machine keeps its disk: download or push what you want to keep."


class History:
    """The handlers of the step, over a run store."""

    def __init__(self, run_store: RunStore) -> None:
        self.run_store = run_store

    @report_errors(outputs=4)
    def show(self, request: gr.Request) -> tuple:
        """The visitor's runs, newest first, those in the queue before them."""
        visitor = visitor_of(request)
        waiting = [one for one in self.run_store.tickets() if one.visitor == visitor]
        runs = self.run_store.runs(visitor)
        names = [one.name for one in waiting] + [self.run_store.name_of(run) for run in runs]
        if not names:
            return NOTHING, gr.Dropdown(choices=[], value=None), gr.Column(visible=False), tab(RUNS, "none yet")
        rows = [(text(one.name), "waiting", "", "", "") for one in waiting]
        rows += [_row(run, self.run_store.name_of(run)) for run in runs]
        lines = table(("run", "state", "started", "peak / budget", "result"), rows)
        choice = gr.Dropdown(choices=names, value=names[0])
        return panel("Your runs", HINT, lines), choice, gr.Column(visible=True), tab(RUNS, f"{len(names)} kept")

    @report_errors(outputs=2)
    def open(self, name: str, request: gr.Request) -> tuple:
        self.run_store.find(visitor_of(request), name)
        return name, gr.Tabs(selected=TRAIN)

    @report_errors(outputs=1)
    def delete(self, name: str | None, run: str | None, request: gr.Request) -> tuple:
        if name:  # else the visitor changed his mind
            found = self.run_store.find(visitor_of(request), name)
            self.run_store.remove(found if isinstance(found, Ticket) else self.run_store.rentals.opened(found))
        return (None if run == name else run,)


def runs_step(page: Page, run_store: RunStore) -> None:
    """Draw the step and wire it."""
    history = History(run_store)
    note = gr.HTML(elem_classes="bare")
    view = gr.HTML(NOTHING, elem_classes="bare")
    with gr.Column(visible=False, elem_classes="box") as actions:
        choice = gr.Dropdown([], label="Run")
        with gr.Row():
            show = gr.Button("Open", variant="primary")
            delete = gr.Button("Delete")
    options: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    shown = [note, view, choice, actions, page.steps[RUNS]]
    page.steps[RUNS].select(history.show, None, shown, **options)
    page.run.change(history.show, None, shown, **options)
    page.load(history.show, None, shown)
    show.click(history.open, choice, [note, page.run, page.tabs], **options)
    sure = "(...all) => confirm('Delete this run, with its adapter and checkpoints?') ? all : [null, all[1]]"
    delete.click(history.delete, [choice, page.run], [note, page.run], js=sure, **options).then(
        history.show, None, shown, **options
    )


def _row(run: Run, name: str) -> tuple[str, ...]:
    plan, result, state = run.plan, run.result, run.state.name
    kind = "live" if state in LIVE else "failed" if state == "failed" else ""
    started = datetime.fromtimestamp((run.path / "plan.json").stat().st_ctime).strftime("%d %b, %H:%M")
    peak = f"{show_bytes(plan.memory.peak_bytes)} / {show_bytes(plan.budget_bytes)}"
    gave = f"{result.metric} {result.before:.3f} → {result.after:.3f}" if result else ""
    chip = f'<span class="chip {kind}">{STATES.get(state, state)}</span>'
    return text(name), chip, started, peak, gave
