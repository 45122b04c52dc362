"""Several datasets at once (TGLoRA): a box in the data step that plans what they share and starts their run."""

from collections.abc import Sequence

import gradio as gr

from taskit.data.sources import READERS
from taskit.errors import DataError, PlanError
from taskit.together.plan import JointPlan, plan_together
from taskit.together.tree_picture import draw_tree
from taskit.training.runs import Run
from taskit.ui.charts import memory_bar
from taskit.ui.decorators import report_errors
from taskit.ui.heatmap import heatmap
from taskit.ui.markup import panel, table, text
from taskit.ui.page import TRAIN, Page
from taskit.ui.run_store import RunStore
from taskit.ui.visitors import visitor_of

ABOUT = (
    "<p class='hint'>Related datasets of one kind can train over one backbone within one budget: near the input they "
    "share all of their LoRA, with depth less and less, most between those whose gradients agree (TGLoRA). Each ends "
    "with an adapter of its own.</p>"
)
SHARING = "From left to right through the depth of the model: who has one LoRA together."


class Together:
    """The handlers of the box, over a run store."""

    def __init__(self, run_store: RunStore) -> None:
        self.run_store = run_store

    @report_errors(outputs=3)
    def plan(self, paths: list[str] | None, backbone: str | None, budget: str) -> tuple:
        """Plan the datasets together, and show who shares with whom."""
        if not backbone:
            raise PlanError("There is no model yet; choose one in the first step.")
        if not paths or len(paths) < 2:
            raise DataError("That is no more than one dataset; upload two or more, or use the box above for one.")
        made = plan_together(paths, backbone, budget)
        return plan_view(made), made, gr.Button(visible=True)

    @report_errors(outputs=2)
    def train(self, made: JointPlan, request: gr.Request) -> tuple:
        return self.run_store.add_together(visitor_of(request), made), gr.Tabs(selected=TRAIN)


def together_box(page: Page, run_store: RunStore) -> None:
    """Draw the box and wire it."""
    together = Together(run_store)
    with gr.Accordion("Several datasets, trained together", open=False):
        gr.HTML(ABOUT, elem_classes="bare")
        with gr.Row():
            files = gr.File(label="Upload two or more", file_count="multiple", file_types=[*READERS, ".zip"],
                            height=150, scale=3)  # fmt: skip
            budget = gr.Textbox("60%", label="Memory budget", info="6GiB, 800MiB, or % as in the next step", scale=1)
        plan = gr.Button("Plan them together")
        note = gr.HTML(elem_classes="bare")
        view = gr.HTML(elem_classes=["bare", "waiting"])
        made = gr.State(None)
        train = gr.Button("Train them together", variant="primary", visible=False)
    plan.click(
        together.plan,
        [files, page.backbone, budget],
        [note, view, made, train],
        api_visibility="private",
        concurrency_limit=1,
        concurrency_id="planning",
        show_progress_on=view,
    )
    gr.on(
        [files.change, budget.change, page.backbone.change],
        lambda: ("", None, gr.Button(visible=False)),
        None,
        [view, made, train],
        queue=False,
        api_visibility="private",
    )
    train.click(together.train, made, [note, page.run, page.tabs], api_visibility="private")


def plan_view(made: JointPlan) -> str:
    """Who shares with whom, the ranks and the memory, as HTML; ranks and memory are those of all datasets."""
    tree, shared = panel("Who shares with whom", SHARING, draw_tree(made.tree)), made.plans[0]
    parts = (heatmap(shared), memory_bar(shared, rehearsed=True))
    return f'{tree}<div class="panels wide">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def together_view(parts: Sequence[Run]) -> str:
    """The result of each dataset, as HTML."""
    rows = [
        (text(run.path.name), result.metric, f"{result.before:.3f}", f"{result.after:.3f}")
        for run in parts
        if (result := run.result)
    ]
    hint = "Each dataset has an adapter of its own: open its run in the step Runs to try, download or push it."
    return panel("Trained together", hint, table(("dataset", "metric", "linear head only", "with the adapter"), rows))
