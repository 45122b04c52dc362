"""Step 1: the base model, and the learned tasks on it."""

from pathlib import Path

import gradio as gr

from taskit.backbone.config import modality_of
from taskit.backbone.sources import PACKAGED, bundled_names, find_backbone
from taskit.errors import BackboneError
from taskit.terminal import show_bytes
from taskit.ui.decorators import report_errors
from taskit.ui.markup import empty, notice, panel, table, text
from taskit.ui.page import MODEL, Page, tab
from taskit.ui.visitors import account
from taskit.zoo.hub.failures import hub_failures
from taskit.zoo.zoo import LearnedTask, Zoo, find_zoo

SUGGESTED = (
    "google/vit-base-patch16-224-in21k",
    "facebook/dinov2-small",
    "FacebookAI/roberta-base",
    "Qwen/Qwen3-0.6B",
    "HuggingFaceTB/SmolLM2-135M",
)
BUNDLED, HUB = "come with TaskIT", "shared on the Hub"
FOUND = 12  # models shown of a search


def model_step(page: Page) -> None:
    """Draw the step and wire it."""
    bundled = [(f"{name} · comes with TaskIT", name) for name in bundled_names()]
    with gr.Column(elem_classes="box"):
        gr.HTML(
            "<h3>Base model</h3><p class='hint'>It stays frozen; TaskIT adds small LoRA matrices to it. "
            "Pick one, or type any Hugging Face id with safetensors weights.</p>",
            elem_classes="bare",
        )
        with gr.Row():
            model = gr.Dropdown(
                [*bundled, *PACKAGED, *SUGGESTED], value=bundled_names()[0], label="Model", allow_custom_value=True,
                filterable=True, scale=3,
            )  # fmt: skip
            words = gr.Textbox(label="Search the Hub", placeholder="for example: small sentence encoder", scale=2)
        zoo = gr.Radio([BUNDLED, HUB], value=BUNDLED, label="Learned tasks", elem_classes="pills")
        note = gr.HTML(elem_classes="bare")
    learned = gr.HTML(elem_classes="bare")
    forward = gr.Button("Next: your data", variant="primary")
    inputs, outputs = [model, zoo], [note, learned, page.backbone, page.zoo, page.steps[MODEL]]
    gr.on([model.change, zoo.input], choose, inputs, outputs, api_visibility="private", show_progress_on=learned)
    words.submit(search, words, [note, model], api_visibility="private")
    page.go(forward.click, MODEL + 1)
    page.load(choose, inputs, outputs)


@report_errors(outputs=4)
def choose(name: str, source: str, request: gr.Request) -> tuple:
    """Find a backbone and list the learned tasks on it; a listing of the Hub is fetched anew."""
    backbone, signed_in = find_backbone((name or "").strip()), account(request)
    wanted = "hub" if source == HUB else None
    token = signed_in["access_token"] if signed_in else None
    modality, zoo = modality_of(backbone), find_zoo(wanted, backbone, token, ask=True)
    summary = f"{backbone.id.rpartition('/')[2]} · {len(zoo.tasks)} tasks"
    warning = notice(zoo.note, "warning") if zoo.note else ""
    return warning + zoo_panel(zoo, modality), backbone.id, wanted, tab(MODEL, summary, done=True)


@report_errors(outputs=1)
def search(words: str) -> tuple:
    """Models on the Hub, most downloaded first."""
    from huggingface_hub import HfApi

    with hub_failures("searching for models", words):
        found = list(HfApi().list_models(search=words.strip(), filter="safetensors", sort="downloads", limit=FOUND))
    if not found:
        raise BackboneError(f"The Hub has no model with safetensors for {words!r}; try other words.")
    return (gr.Dropdown(choices=[model.id for model in found], label="Model · found on the Hub"),)


def zoo_panel(zoo: Zoo, modality: str) -> str:
    """The learned tasks as a table, with the metric and the size of each."""
    title, hint = (
        "Learned tasks",
        f"Adapters on this {modality} model; the plan takes what they know about each layer.",
    )
    if not zoo.tasks:
        body = empty("Nobody has shared an adapter of this model here yet", "Yours can be the first one.")
    else:
        head = ("task", "accuracy", "size", "licence of the data", "source")
        body = table(head, [_row(task) for task in zoo.tasks])
    return panel(title, hint, body)


def _row(task: LearnedTask) -> tuple[str, ...]:
    size = sum(file.stat().st_size for file in Path(task.folder).glob("*.safetensors"))
    gain = "" if task.value is None else f"{task.value:.3f}"
    if task.head_alone is not None:
        gain += f" <span class='chip'>linear head only {task.head_alone:.3f}</span>"
    web = task.source.startswith("https://")
    source = f'<a href="{text(task.source)}" target="_blank" rel="noreferrer">data</a>' if web else text(task.source)
    return text(task.task), gain, show_bytes(size), text(task.licence or "not stated"), source
