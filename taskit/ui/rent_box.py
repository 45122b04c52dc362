"""In step 4: train on a machine rented from Hugging Face; its price is shown first.

On a Space the account of the sign-in pays; elsewhere the visitor gives a token, kept in memory while the app runs.
"""

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.utils import get_space

from taskit.errors import HubError, RunError
from taskit.jobs.job import authenticated_api
from taskit.jobs.machine import Machine, list_machines
from taskit.jobs.quote import Quote, make_quote
from taskit.planning.plan import Plan
from taskit.ui.decorators import report_errors
from taskit.ui.frontier_view import FrontierView
from taskit.ui.markup import figures, panel
from taskit.ui.page import Chosen, Page
from taskit.ui.plan_step import rehearsed
from taskit.ui.push import token_of
from taskit.ui.run_store import RunStore, Ticket
from taskit.ui.run_view import duration
from taskit.ui.visitors import account, visitor_of

TITLE = "Or train it on a machine rented from Hugging Face"
HINT = (
    "<p class='hint'>Hugging Face bills your own account for the time that the machine runs; you see the price "
    "before anything starts. Plan, data and checkpoints go to a private repository of yours, so that the run is kept "
    "even if this app loses its disk.</p>"
)
WHY = "Renting a machine"


@dataclass(frozen=True, slots=True)
class Offer:
    """The price that was shown, and the plan that it is for."""

    plan: Plan
    quote: Quote


class Rent:
    """The handlers of the box, over a run store."""

    def __init__(self, run_store: RunStore) -> None:
        self.run_store = run_store

    @report_errors(outputs=1)
    def machines(self, typed: str | None, request: gr.Request) -> tuple:
        """The machines on offer with their price, none chosen yet."""
        found = list_machines(authenticated_api(token_of(request, typed, WHY)))
        return (gr.Dropdown(choices=[(_label(one), one.flavor) for one in found], value=None, visible=True),)

    @report_errors(outputs=4)
    def price(
        self, made: FrontierView | None, chosen: Chosen | None, flavor: str, typed: str | None, request: gr.Request
    ) -> tuple:
        """Time and price of the plan on the screen on that machine."""
        api = authenticated_api(token_of(request, typed, WHY))
        chosen = rehearsed(made, chosen)
        quote = make_quote(chosen.plan, flavor, api, tighten=True)
        require_lasting_sign_in(quote, request)
        start = gr.Button(f"Start it: {dollars(quote.most_dollars)} at most", visible=True)
        return chosen, Offer(chosen.plan, quote), quote_view(quote), start

    @report_errors(outputs=7)
    def start(self, offer: Offer | None, chosen: Chosen | None, typed: str | None, request: gr.Request) -> tuple:
        """Rent the machine at the price that was shown, which is then cleared."""
        if offer is None:
            raise RunError("There is no price yet; choose a machine first.")
        if chosen is None or chosen.plan != offer.plan:
            raise RunError("The plan was changed after this price was shown; choose the machine again.")
        token = token_of(request, typed, WHY)
        require_lasting_sign_in(offer.quote, request)
        name = self.run_store.rent(visitor_of(request), offer.plan, offer.quote, token)
        hidden = gr.Button(visible=False), gr.Dropdown(value=None), gr.Accordion(open=False)
        return name, None, "", "", *hidden

    @report_errors(outputs=1)
    def follow(self, name: str, typed: str | None, request: gr.Request) -> tuple:
        """Take the visitor's token for a run that was started before the app was."""
        found = self.run_store.find(visitor_of(request), name)
        if not isinstance(found, Ticket):
            self.run_store.rentals.follow(found, token_of(request, typed, "Following this run"))
            self.run_store.rentals.refresh()
        return ("",)


def require_lasting_sign_in(quote: Quote, request: gr.Request) -> None:
    """Raises HubError where the token would expire before the run has saved its last checkpoint."""
    signed_in = account(request)
    left = signed_in["expires_at"] - time.time() if signed_in else quote.timeout_seconds
    if left < quote.timeout_seconds:
        raise HubError(
            f"Your sign-in ends in {duration(left)}, and this run may take {duration(quote.timeout_seconds)}; log "
            "out and in again, or plan fewer epochs."
        )


def quote_view(quote: Quote) -> str:
    """The price as a panel (HTML)."""
    machine = quote.machine
    values = {
        "takes about": duration(quote.seconds),
        "costs about": dollars(quote.dollars),
        "is ended after": duration(quote.timeout_seconds),
        "costs at most": dollars(quote.most_dollars),
    }
    hint = f"{dollars(machine.dollars_per_hour)} an hour. The time includes setting the machine up."
    return panel(f"{machine.flavor}: {machine.title}", hint, figures(values))


def dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 0.005 else "less than 1 cent"


def _label(machine: Machine) -> str:
    return f"{machine.flavor} · {machine.title} · {dollars(machine.dollars_per_hour)} an hour"


def rent_box(page: Page, rent: Rent) -> tuple[gr.Accordion, gr.Textbox]:
    """Draw the box and wire it; returns it, and where a token is typed."""
    offer = gr.State(None)
    with gr.Accordion(TITLE, open=False, elem_classes="box") as box:
        gr.HTML(HINT, elem_classes="bare")
        note = gr.HTML(elem_classes="bare")
        token = gr.Textbox(
            label="Token with the permissions write and job.write", type="password", visible=get_space() is None
        )
        look = gr.Button("Show machines and prices")
        machine = gr.Dropdown([], label="Machine", visible=False)
        price = gr.HTML(elem_classes="bare")
        start = gr.Button("Start it", variant="primary", visible=False)
    options: dict[str, Any] = {"api_visibility": "private"}
    heavy: dict[str, Any] = {**options, "concurrency_limit": 1, "concurrency_id": "planning"}
    look.click(rent.machines, token, [note, machine], show_progress_on=machine, **options)
    machine.input(
        rent.price,
        [page.frontier_view, page.chosen, machine, token],
        [note, page.chosen, offer, price, start],
        show_progress_on=price,
        **heavy,
    )
    started = [note, page.run, offer, token, price, start, machine, box]
    start.click(rent.start, [offer, page.chosen, token], started, show_progress_on=price, **options)
    return box, token
