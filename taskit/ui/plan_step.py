"""Step 3: the budget, and the plan that is computed as it changes."""

from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from taskit.errors import PlanError, TaskITError
from taskit.planning.budget import AUTO_SHARE, Budget, device_memory
from taskit.planning.context import prepare
from taskit.planning.levers import effects
from taskit.planning.planner import decide
from taskit.planning.recipe import Recipe
from taskit.terminal import show_bytes
from taskit.ui.commands import save
from taskit.ui.decorators import report_errors, run_on_zero_gpu, trim_memory
from taskit.ui.frontier_view import STEPS, FrontierView, at_percent, frontier_view
from taskit.ui.lever_fields import draw_levers, infos, read_levers
from taskit.ui.markup import empty
from taskit.ui.page import PLAN, Checked, Chosen, Page, tab
from taskit.ui.plan_view import effect, plan_view
from taskit.ui.visitors import account

CARDS = (8, 12, 16, 24, 48, 80)  # GB on the box, which are GiB
START = 60  # per cent, where the slider stands at first
BEHIND_SLIDER = "by the slider"
NOTHING = empty("No plan yet", "Choose a model and data first; then TaskIT looks at both and plans.")
CHANGED = empty(
    "The plan is to be made anew",
    "TaskIT reads the data, traces a training step and asks the learned tasks. Press Next in the step Data.",
)
PROGRESS_MESSAGES = 5  # that `prepare` and `decide` report

HEAVY: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "planning"}
MEASURING = {**HEAVY, "concurrency_id": "measuring"}  # in another queue, so that it delays no plan and no training
SETTLING = {**MEASURING, "show_progress": "hidden", "trigger_mode": "always_last"}
LIGHT: dict[str, Any] = {
    "api_visibility": "private",
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "always_last",
}


def plan_step(page: Page, forward: gr.Button) -> tuple[gr.Button, gr.Button, gr.HTML]:
    """Draw the step and wire it; ``forward`` leads here from the data.

    Returns the buttons that train here and elsewhere, and where the step shows errors.
    """
    note = gr.HTML(elem_classes="bare")
    with gr.Column(elem_classes="box", visible=False) as controls:
        gr.HTML("<h3>Memory budget</h3><p class='hint'>Drag, or pick a card. The plan follows at once.</p>",
                elem_classes="bare")  # fmt: skip
        card = gr.Radio(presets(), value=BEHIND_SLIDER, label="Card", elem_classes="pills")
        slider = gr.Slider(0, STEPS, START, step=1, label="Budget, % of the way from no update to LoRA everywhere")
        ends = gr.HTML(elem_classes="bare")
        levers = draw_levers()
    view = gr.HTML(NOTHING, elem_classes=["bare", "waiting"])
    with gr.Row(visible=False) as actions:
        train = gr.Button("Train this plan", variant="primary", scale=2)
        elsewhere = gr.Button("Rent a bigger machine", scale=1)
        rehearse = gr.Button("Save as plan.json", scale=1)
        file = gr.DownloadButton("Download plan.json", visible=False, scale=1)
    redrawn = [page.chosen, view, ends, page.steps[PLAN], file]
    opened = [note, page.frontier_view, *redrawn, controls, actions]
    heavy = {**HEAVY, "show_progress_on": view}
    inputs = [page.checked, page.backbone, page.zoo, slider, card, *levers.fields]
    settled = (settle, [page.frontier_view, slider, card], [note, page.chosen, view])
    page.go(forward.click, PLAN).then(open_plan, inputs, opened, **heavy).success(*settled, **SETTLING)
    moved = [page.frontier_view, slider]
    slider.input(lambda: BEHIND_SLIDER, None, card, **LIGHT)
    slider.input(redraw, moved, [note, *redrawn], **LIGHT)
    slider.release(*settled, **SETTLING)
    picked = card.input(pick_card, [page.frontier_view, card, slider], [note, slider, *redrawn], **LIGHT)
    picked.success(*settled, **SETTLING)
    measure = (measure_levers, [page.frontier_view, page.chosen], [levers.note, *levers.measured])
    levers.box.expand(*measure, **MEASURING, show_progress_on=levers.note)
    applied = [note, page.frontier_view, levers.effect, *redrawn]
    levers.apply.click(apply_levers, [page.frontier_view, *inputs], applied, **heavy).then(
        *measure, **MEASURING, show_progress_on=levers.note
    )
    changed = [page.checked.change, page.backbone.change, page.zoo.change]
    hidden = [page.frontier_view, page.chosen, view, controls, actions, page.steps[PLAN]]
    gr.on(changed, reset, page.checked, hidden, **LIGHT)
    rehearse.click(rehearse_plan, [page.frontier_view, page.chosen], [note, page.chosen, view, file], **heavy)
    return train, elsewhere, note


def presets() -> list[str]:
    """The choices of a card: the slider, this machine, then the usual cards."""
    free, _ = device_memory()
    return [BEHIND_SLIDER, f"this machine, {show_bytes(free)} free", *(f"{size} GB card" for size in CARDS)]


def budget_of(card: str, percent: float) -> Budget:
    """The budget of the controls; of a card, AUTO_SHARE of its memory, the rest is for driver and fragments."""
    if card.startswith("this machine"):
        return Budget("auto", bytes=int(AUTO_SHARE * device_memory()[0]))
    if card.endswith("GB card"):
        size = int(card.split()[0])
        return Budget(f"{AUTO_SHARE * size:g}GiB", bytes=int(AUTO_SHARE * size * 2**30))
    return at_percent(percent)


@report_errors(outputs=8)
def open_plan(
    request: gr.Request,
    checked: Checked | None,
    backbone: str,
    zoo: str | None,
    percent: float,
    card: str,
    *levers: Any,
    progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands it in
) -> tuple:
    """Compute the frontier, and draw the plan of the present budget."""
    made = compute_frontier(checked, backbone, zoo, *read_levers(*levers), request, progress)
    return made, *_draw(made, budget_of(card, percent)), gr.Column(visible=True), gr.Row(visible=True)


@trim_memory
def compute_frontier(
    checked: Checked | None,
    backbone: str,
    zoo: str | None,
    recipe: Recipe,
    quantization: str | None,
    method: str,
    request: gr.Request,
    progress: gr.Progress,
) -> FrontierView:
    """Read the data, measure memory and similarity, all once; then compute the frontier."""
    if checked is None:
        raise PlanError("There is no data to plan for yet; choose some in the step before.")
    signed_in = account(request)
    found = _compute_frontier(
        checked.source,
        backbone,
        {
            "zoo": zoo,
            "columns": dict(checked.columns) or None,
            "recipe": recipe,
            "quantization": quantization,
            "method": method,
            "token": signed_in["access_token"] if signed_in else None,
        },
        progress,
    )
    if isinstance(found, TaskITError):
        raise found
    return found


@run_on_zero_gpu
def _compute_frontier(
    source: str, backbone: str, options: dict[str, Any], progress: gr.Progress
) -> FrontierView | TaskITError:
    """The frontier, or the error; its context no longer reports progress, which is this visitor's."""
    step = iter(range(1, PROGRESS_MESSAGES + 1))

    def on_progress(message: str) -> None:
        progress((next(step, PROGRESS_MESSAGES), PROGRESS_MESSAGES), desc=message.capitalize())

    try:
        made = frontier_view(prepare(source, backbone, **options, on_progress=on_progress))
    except TaskITError as error:
        return error
    return replace(made, context=made.context.quiet)


def reset(checked: Checked | None) -> tuple:
    """Clear the plan after another model, zoo or dataset was chosen."""
    hidden = gr.Column(visible=False), gr.Row(visible=False)
    return None, None, CHANGED if checked else NOTHING, *hidden, tab(PLAN, open=checked is not None)


@report_errors(outputs=5)
def redraw(made: FrontierView | None, percent: float) -> tuple:
    return _draw(_required(made), at_percent(percent))


@report_errors(outputs=6)
def pick_card(made: FrontierView | None, card: str, percent: float) -> tuple:
    """Plan for a card, and put the slider where its budget lies."""
    made, budget = _required(made), budget_of(card, percent)
    drawn = _draw(made, budget)
    position = made.position(drawn[0].plan.budget_bytes)
    return min(max(round(position), 0), STEPS), *drawn


@report_errors(outputs=7)
def apply_levers(
    request: gr.Request,
    before: FrontierView | None,
    checked: Checked | None,
    backbone: str,
    zoo: str | None,
    percent: float,
    card: str,
    *levers: Any,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple:
    """Plan again with other levers, and show what that did to the memory."""
    before, (recipe, bits, method) = _required(before), read_levers(*levers)
    was = before.context
    free = replace(was.recipe, epochs=recipe.epochs, learning_rate=recipe.learning_rate)
    if (free, was.backbone.quantization, was.method) == (recipe, bits, method):
        made = replace(before, context=replace(was, recipe=recipe))  # epochs and learning rate change no byte
    else:
        made = compute_frontier(checked, backbone, zoo, recipe, bits, method, request, progress)
    return made, effect(before, made), *_draw(made, budget_of(card, percent))


@report_errors(outputs=4)
def measure_levers(made: FrontierView | None, chosen: Chosen | None) -> tuple:
    """What other values of each lever would do to the peak of the plan on the screen."""
    if chosen is None:
        raise PlanError("There is no plan yet; open the plan step first.")
    context = _required(made).context
    found = effects(context, chosen.plan)
    length = partial(gr.Number, visible=context.data.modality != "image")  # an image has none
    kinds = (gr.Number, length, gr.Dropdown, gr.Dropdown)
    return tuple(kind(info=line) for kind, line in zip(kinds, infos(found), strict=True))


@report_errors(outputs=3)
def rehearse_plan(made: FrontierView | None, chosen: Chosen | None) -> tuple:
    """Rehearse the draft on the screen, and offer it as a file."""
    chosen = rehearsed(made, chosen)
    return chosen, plan_view(_required(made), chosen), gr.DownloadButton(visible=True, value=str(save(chosen)))


def settle(made: FrontierView | None, percent: float, card: str) -> tuple:
    """Once the controls are let go: rehearse the plan, so that what is shown is what would be trained."""
    if made is None:  # the step shows why
        return gr.skip(), gr.skip(), gr.skip()
    return _settle(made, budget_of(card, percent))


@report_errors(outputs=2)
def _settle(made: FrontierView, budget: Budget) -> tuple:
    chosen = Chosen(budget, decide(made.context, budget), rehearsed=True)
    return chosen, plan_view(made, chosen)


def rehearsed(made: FrontierView | None, chosen: Chosen | None) -> Chosen:
    """The plan as it would be trained; a whole step of it is rehearsed, if that was not done, for its peak."""
    made = _required(made)
    if chosen is None:
        raise PlanError("There is no plan yet; open the plan step first.")
    if chosen.rehearsed:
        return chosen
    return replace(chosen, plan=decide(made.context, chosen.budget), rehearsed=True)


def _required(made: FrontierView | None) -> FrontierView:
    if made is None:
        raise PlanError("There is no plan to change yet; choose data and open the plan step.")
    return made


def _draw(made: FrontierView, budget: Budget) -> tuple:
    """Values of `redrawn`: the draft, its picture, the ends of the slider, the tab, and no file for a draft."""
    chosen = Chosen(budget, made.draft(budget), rehearsed=False)
    low, high = show_bytes(made.budgets[0]), show_bytes(made.budgets[-1])
    ends = f'<div class="ends"><span>{low} · no update</span><span>{high} · LoRA everywhere</span></div>'
    summary = show_bytes(chosen.plan.budget_bytes)
    return chosen, plan_view(made, chosen), ends, tab(PLAN, summary, done=True), gr.DownloadButton(visible=False)
