"""Step 5: the result of a run, to look at, to try, to download and to share."""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_space

from taskit.errors import DataError, RunError
from taskit.terminal import show_bytes
from taskit.training.inference import PAIR, Prediction, compare
from taskit.training.results import Result
from taskit.training.runs import Run
from taskit.ui.decorators import report_errors
from taskit.ui.markup import bar, empty, figures, panel, share
from taskit.ui.page import RESULT, Page
from taskit.ui.push import preview, push_run, token_of
from taskit.ui.run_store import RunStore, Ticket
from taskit.ui.run_view import duration, memory_meter
from taskit.ui.score_view import scores_view
from taskit.ui.together_box import together_view
from taskit.ui.visitors import visitor_of

TRY = (
    "<h3>Try it</h3><p class='hint'>The adapter answers as any PEFT user would hear it; beside it the same model "
    "with the LoRA switched off.</p>"
)
SHARE = (
    "<h3>Share it</h3><p class='hint'>A repository of your own on the Hugging Face Hub; your token is used for this "
    "push alone.</p>"
)
UNASKED = empty("No question yet", "Its answer stands here.")
NOTHING = empty("No result yet", "It appears here when a run is done.")


class Results:
    """The handlers of the step, over a run store."""

    def __init__(self, run_store: RunStore) -> None:
        self.run_store = run_store

    @report_errors(outputs=4)
    def show(self, name: str | None, request: gr.Request) -> tuple:
        """The result of a run, and the inputs that fit its data."""
        if not name:
            return NOTHING, gr.skip(), gr.skip(), gr.Column(visible=False)
        found = self.run_store.find(visitor_of(request), name)
        if isinstance(found, Ticket) or found.result is None:
            return NOTHING, gr.skip(), gr.skip(), gr.Column(visible=False)
        if parts := self.run_store.parts(found):
            return together_view(parts), gr.skip(), gr.skip(), gr.Column(visible=False)
        modality = found.plan.data.modality
        inputs = gr.Image(visible="image" in modality), gr.Textbox(visible="text" in modality)
        return result_view(found, found.result), *inputs, gr.Column(visible=True)

    @report_errors(outputs=1)
    def ask(self, name: str, image: str | None, words: str | None, request: gr.Request) -> tuple:
        """One prediction with and without the LoRA."""
        run = self._finished(name, request)
        words = (words or "").strip()  # a hidden textbox holds nothing
        given = {"image": image, "text": words, "image-text": image and f"{image}{PAIR}{words}"}[
            run.plan.data.modality
        ]
        if not given:
            raise DataError("There is nothing to predict yet; give an image, a sentence or a prompt.")
        return (answer_view(*compare(run.path, given)),)

    @report_errors(outputs=1)
    def pack(self, name: str, request: gr.Request) -> tuple:
        """The adapter folder as a zip."""
        run = self._finished(name, request)
        folder = Path(tempfile.mkdtemp(prefix="taskit-adapter-"))
        made = shutil.make_archive(str(folder / run.path.name), "zip", run.folder.adapter)
        return (gr.DownloadButton(visible=True, value=made),)

    @report_errors(outputs=3)
    def preview(self, name: str, repo: str, typed: str | None, request: gr.Request) -> tuple:
        """The files and the card as a push would send them."""
        files, card = preview(self._finished(name, request), repo, token_of(request, typed))
        return files, card, gr.Accordion(visible=True, open=True)

    def push(self, name: str, repo: str, private: bool, typed: str | None, request: gr.Request) -> tuple:
        """Push with the visitor's token; the field of the token is emptied, after an error too."""
        error, link = self._push(name, repo, private, typed, request)
        return error or link, ""

    @report_errors(outputs=1)
    def _push(self, name: str, repo: str, private: bool, typed: str | None, request: gr.Request) -> tuple:
        token = token_of(request, typed)
        return (push_run(self._finished(name, request), repo, private, token),)

    def _finished(self, name: str, request: gr.Request) -> Run:
        found = self.run_store.find(visitor_of(request), name)
        if isinstance(found, Ticket) or found.result is None:
            raise RunError("This run has no adapter yet; wait until it is done.")
        return found


def result_step(page: Page, run_store: RunStore) -> None:
    """Draw the step and wire it."""
    results = Results(run_store)
    note = gr.HTML(elem_classes="bare")
    view = gr.HTML(NOTHING, elem_classes="bare")
    with gr.Column(visible=False) as after:
        with gr.Column(elem_classes="box"):
            gr.HTML(TRY, elem_classes="bare")
            with gr.Row():
                image = gr.Image(label="An image", type="filepath", sources=["upload"], height=190, visible=False)
                words = gr.Textbox(label="A sentence or a prompt", lines=3, visible=False)
                answer = gr.HTML(UNASKED, elem_classes="bare")
            ask = gr.Button("Ask the adapter")
        with gr.Row():
            pack = gr.Button("Pack the adapter as a zip")
            file = gr.DownloadButton("Download the adapter", visible=False, variant="primary")
        with gr.Column(elem_classes="box"):
            gr.HTML(SHARE, elem_classes="bare")
            with gr.Row():
                repo = gr.Textbox(label="Name", placeholder="OWNER/NAME", scale=2)
                token = gr.Textbox(label="Token with write access", type="password", visible=get_space() is None)
                private = gr.Checkbox(True, label="Private", min_width=100)
            pushed = gr.HTML(elem_classes="bare")
            with gr.Row():
                look = gr.Button("Preview the card")
                push = gr.Button("Push to the Hub", variant="primary")
            with gr.Accordion("The model card", open=False, visible=False) as shown_card:
                files = gr.HTML(elem_classes="bare")
                card = gr.Markdown()
    options: dict[str, Any] = {"api_visibility": "private"}
    heavy: dict[str, Any] = {**options, "concurrency_limit": 1, "concurrency_id": "planning"}
    shown = [note, view, image, words, after]
    previewed = [pushed, files, card, shown_card]
    page.run.change(results.show, page.run, shown, show_progress="hidden", **options)
    page.steps[RESULT].select(results.show, page.run, shown, show_progress="hidden", **options)
    page.run.change(clear, None, [answer, file, pushed, shown_card], queue=False, **options)
    ask.click(results.ask, [page.run, image, words], [note, answer], show_progress_on=answer, **heavy)
    look.click(results.preview, [page.run, repo, token], previewed, concurrency_limit=4, **options)
    push.click(results.push, [page.run, repo, private, token], [pushed, token], concurrency_limit=4, **options)
    pack.click(results.pack, page.run, [note, file], **options)


def clear() -> tuple:
    """Clear the answer, the zip and the push of the run that was open before."""
    return UNASKED, gr.DownloadButton(visible=False), "", gr.Accordion(visible=False)


def result_view(run: Run, result: Result) -> str:
    """Before and after, the cost, and the peak against its prediction."""
    values = {
        f"{result.metric} with the linear head only": f"{result.before:.3f}",
        f"{result.metric} with the adapter": f"{result.after:.3f}",
        "trained parameters": f"{result.trainable_parameters:,}",
        "time": duration(result.train_seconds),
    }
    top = panel(f"{run.path.name}: {_gain(result)}", _how_sure(result, run.plan.data.eval_rows), figures(values))
    top_of_scale = max(1.0, result.before, result.after)
    bars = "".join(
        bar(
            name, f'<i style="left:0;width:{share(value, top_of_scale)}"></i>', f"{value:.3f}", muted=name == "before"
        )
        for name, value in (("before", result.before), ("after", result.after))
    )
    change = panel(
        "Before and after",
        f"{result.metric}; {_best(result)}.",
        f'<div class="bars">{bars}</div>',
    )
    scores = scores_view(run.plan.data.labels, result.details_before, result.details_after)
    pictures = f'<div class="panels"><div>{change}</div><div>{memory_meter(run)}</div>{scores}</div>'
    return f'<div class="stacked">{top}{pictures}</div>'


def _best(result: Result) -> str:
    if result.best_epoch == 0:
        return (
            "no epoch was better than the linear head only, which was kept: try more epochs or another learning rate"
        )
    return f"the best epoch was {result.best_epoch}"


def _gain(result: Result) -> str:
    step = result.after - result.before
    peak = f"in {show_bytes(result.measured_peak_bytes)}"
    return f"{step:+.3f} {result.metric} {peak}"


def _how_sure(result: Result, rows: int) -> str:
    """The number of evaluation rows, and for an accuracy two standard errors."""
    measured = f"On {rows:,} rows kept aside."
    if result.metric != "accuracy":
        return measured
    chance = 2 * math.sqrt(max(result.after * (1 - result.after), 0.25 / rows) / rows)
    return f"{measured} Chance alone moves the accuracy on so many rows by up to ±{chance:.3f}."


def answer_view(adapted: Prediction, bare: Prediction) -> str:
    """Two answers side by side, and for a class how sure the model is of it."""
    cards = (_answer("with the adapter", adapted), _answer("without the LoRA", bare))
    return f'<div class="panels two">{"".join(cards)}</div>'


def _answer(who: str, prediction: Prediction) -> str:
    sure = ""
    if prediction.probability is not None:
        width = share(prediction.probability, 1)
        sure = f'<div class="meter"><i style="width:{width}"></i></div>'
        sure += f'<p class="hint">probability {prediction.probability:.1%}</p>'
    return panel(prediction.answer or "(nothing)", who, sure)
