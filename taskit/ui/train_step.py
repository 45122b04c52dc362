"""Step 4: a run in training.  It is another process; the page only reads its folder and signals it."""

from typing import Any

import gradio as gr

from taskit.training.run_folder import LIVE
from taskit.training.runs import Run
from taskit.ui.decorators import report_errors
from taskit.ui.frontier_view import FrontierView
from taskit.ui.markup import notice
from taskit.ui.page import RESULT, TRAIN, Chosen, Page, tab
from taskit.ui.plan_step import rehearsed
from taskit.ui.rent_box import Rent, rent_box
from taskit.ui.rentals import is_rented
from taskit.ui.run_store import RunStore, Ticket
from taskit.ui.run_view import NOTHING, STATES, run_view
from taskit.ui.visitors import account, visitor_of

TICK = 1.0  # seconds between two reads of a live run
NEEDS_TOKEN = (
    "This run is on a machine at Hugging Face and stands here as it was last seen: give your token in the box below, "
    "then press “Follow it”."
)


class Watch:
    """The handlers of the step, over a run store."""

    def __init__(self, run_store: RunStore) -> None:
        self.run_store = run_store

    @report_errors(outputs=3)
    def train(self, made: FrontierView | None, chosen: Chosen | None, request: gr.Request) -> tuple:
        """Rehearse the plan if that was not done, and put it into the queue."""
        chosen = rehearsed(made, chosen)
        name = self.run_store.add(visitor_of(request), chosen.plan)
        return chosen, name, gr.Tabs(selected=TRAIN)

    def look(self, name: str | None, request: gr.Request) -> tuple:
        """The run as it is now: view, buttons, whether the timer goes on, and the labels of the steps."""
        if not name:
            return NOTHING, *(gr.Button(visible=False),) * 4, gr.Timer(active=False), gr.skip(), gr.skip()
        error, view, *rest = self._run_now(name, request)
        return (error or view, *rest)

    @report_errors(outputs=7)
    def _run_now(self, name: str, request: gr.Request) -> tuple:
        found = self.run_store.find(visitor_of(request), name)
        banner, needs_token = self._rental_notice(found, request)
        waiting = isinstance(found, Ticket)
        state = ("failed" if found.error else "queued") if isinstance(found, Ticket) else found.state.name
        done = isinstance(found, Run) and found.result is not None
        buttons = (
            gr.Button(
                visible=state in LIVE,
                interactive=state != "stopping",  # once is enough
                value="Leave the line" if waiting else "Stop and save",
            ),
            gr.Button(visible=not waiting and state in ("stopped", "failed")),
            gr.Button(visible=done),
            gr.Button(visible=needs_token),
        )
        again = gr.Timer(active=state in LIVE)
        summary = "waiting" if waiting else STATES.get(state, state)
        labels = tab(TRAIN, summary, done=done), tab(RESULT, "ready" if done else "", open=done)
        return banner + run_view(found, self.run_store), *buttons, again, *labels

    def _rental_notice(self, found: Run | Ticket, request: gr.Request) -> tuple[str, bool]:
        """The notice above a rented run, and whether its token is missing; that of a signed-in visitor is taken."""
        rentals, signed_in = self.run_store.rentals, account(request)
        if isinstance(found, Ticket) or not is_rented(found):
            return "", False
        if signed_in:
            rentals.follow(found, signed_in["access_token"])
        if found.state.name in LIVE and not rentals.follows(found):
            return notice(NEEDS_TOKEN, "note"), True
        error = rentals.last_error(found)
        return notice(error, "warning") if error else "", False

    @report_errors(outputs=0)
    def stop(self, name: str, request: gr.Request) -> tuple:
        found = self.run_store.find(visitor_of(request), name)
        self.run_store.remove(found) if isinstance(found, Ticket) else self.run_store.rentals.opened(found).stop()
        return ()

    @report_errors(outputs=0)
    def resume(self, name: str, request: gr.Request) -> tuple:
        found = self.run_store.find(visitor_of(request), name)
        if isinstance(found, Run):
            self.run_store.rentals.opened(found).resume()
        return ()

    def latest(self, request: gr.Request) -> tuple:
        """After a reload: the visitor's live run, or else his newest; the step opens if it is live."""
        visitor = visitor_of(request)
        waiting = [one.name for one in self.run_store.tickets() if one.visitor == visitor]
        runs = self.run_store.runs(visitor)
        live = [self.run_store.name_of(run) for run in runs if run.state.name in LIVE] + waiting
        names = live or [self.run_store.name_of(run) for run in runs]
        return names[0] if names else None, gr.Tabs(selected=TRAIN) if live else gr.skip()


def train_step(page: Page, run_store: RunStore, train: gr.Button, elsewhere: gr.Button, plan_note: gr.HTML) -> None:
    """Draw the step and wire it; ``train``, ``elsewhere`` and ``plan_note`` are in the plan step."""
    watch, rent = Watch(run_store), Rent(run_store)
    note = gr.HTML(elem_classes="bare")
    view = gr.HTML(NOTHING, elem_classes="bare")
    with gr.Row():
        stop = gr.Button("Stop and save", visible=False)
        resume = gr.Button("Go on", variant="primary", visible=False)
        result = gr.Button("See the result", variant="primary", visible=False)
        follow = gr.Button("Follow it", variant="primary", visible=False)
    box, token = rent_box(page, rent)
    timer = gr.Timer(TICK, active=False)
    seen = [view, stop, resume, result, follow, timer, page.steps[TRAIN], page.steps[RESULT]]
    light: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    timer.tick(watch.look, page.run, seen, **light)
    for button, handler in ((stop, watch.stop), (resume, watch.resume)):
        button.click(handler, page.run, [note], **light).then(watch.look, page.run, seen, **light)
    train.click(
        watch.train,
        [page.frontier_view, page.chosen],
        [plan_note, page.chosen, page.run, page.tabs],
        api_visibility="private",
        concurrency_limit=1,
        concurrency_id="planning",
        show_progress_on=plan_note,
    )
    follow.click(rent.follow, [page.run, token], [note, token], **light).then(watch.look, page.run, seen, **light)
    page.go(result.click, RESULT)
    page.go(elsewhere.click, TRAIN)
    elsewhere.click(lambda: gr.Accordion(open=True), None, box, queue=False, api_visibility="private")
    page.load(watch.latest, None, [page.run, page.tabs])
    page.run.change(watch.look, page.run, seen, **light)
