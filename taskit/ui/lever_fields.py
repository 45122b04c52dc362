"""The levers of the plan step: fields beside the budget, each with the effect of other values on the memory."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from taskit.backbone.sources import QUANTIZATIONS
from taskit.errors import PlanError
from taskit.methods import METHODS
from taskit.planning.levers import BATCH, CHECKPOINTING, LENGTH, QUANTIZATION, Effect
from taskit.planning.recipe import Recipe
from taskit.step.step import OPTIMIZERS
from taskit.terminal import show_bytes
from taskit.ui.markup import text

TITLE = "Other levers: batch, length, epochs, optimizer, quantization, checkpointing, method"
HINT = (
    "<p class='hint'>Under a lever: what another value would do to the peak of the plan that you saw when you opened "
    "this, or applied the last change.</p>"
)
NO_QUANTIZATION = "none"
RECOMPUTING = {"auto": None, "on": True, "off": False}


@dataclass(frozen=True, slots=True)
class Levers:
    """The fields in the order of the handlers' arguments, and what stands around them in ``box``.

    ``note`` shows an error of `measure_levers`, ``effect`` what the applied levers did.
    """

    batch: gr.Number
    length: gr.Number
    epochs: gr.Number
    rate: gr.Number
    optimizer: gr.Dropdown
    quantization: gr.Dropdown
    checkpointing: gr.Dropdown
    method: gr.Dropdown
    box: gr.Accordion
    note: gr.HTML
    apply: gr.Button
    effect: gr.HTML

    @property
    def fields(self) -> list[Any]:
        return [
            self.batch, self.length, self.epochs, self.rate, self.optimizer, self.quantization, self.checkpointing,
            self.method,
        ]  # fmt: skip

    @property
    def measured(self) -> list[Any]:
        """The fields that `infos` has a line for."""
        return [self.batch, self.length, self.quantization, self.checkpointing]


def draw_levers() -> Levers:
    """Draw the closed box with all fields."""
    recipe = Recipe()
    with gr.Accordion(TITLE, open=False) as box:
        gr.HTML(HINT, elem_classes="bare")
        note = gr.HTML(elem_classes=["bare", "measured"])
        with gr.Row(elem_classes="levers"):
            fields: dict[str, Any] = {
                "batch": gr.Number(recipe.batch_size, label="Batch size", precision=0, minimum=1),
                "length": gr.Number(0, label="Longest text, tokens; 0 is whole", precision=0, minimum=0),
                "epochs": gr.Number(recipe.epochs, label="Epochs", precision=0, minimum=1),
                "rate": gr.Number(0, label="Learning rate; 0 is by the ranks"),
                "optimizer": gr.Dropdown([*OPTIMIZERS], value=recipe.optimizer, label="Optimizer"),
                "quantization": gr.Dropdown([NO_QUANTIZATION, *filter(None, QUANTIZATIONS)], label="Quantization"),
                "checkpointing": gr.Dropdown([*RECOMPUTING], label="Checkpointing"),
                "method": gr.Dropdown([*METHODS], value=next(iter(METHODS)), label="Method"),
            }
        gr.HTML(explanations(), elem_classes="bare")
        apply = gr.Button("Apply, and see what it does to the memory")
        effect = gr.HTML(elem_classes="bare")
    return Levers(**fields, box=box, note=note, apply=apply, effect=effect)


def explanations() -> str:
    """What each method does, in a closed box (HTML)."""
    entries = "".join(f"<dt>{text(name)}</dt><dd>{text(one.explanation)}</dd>" for name, one in METHODS.items())
    return f'<details class="why"><summary>What each method does</summary><dl>{entries}</dl></details>'


def read_levers(
    batch: float,
    length: float | None,
    epochs: float,
    rate: float | None,
    optimizer: str,
    bits: str,
    recomputing: str,
    method: str,
) -> tuple[Recipe, str | None, str]:
    """The fields as a recipe, a quantization and a method; raises PlanError for what cannot be trained with."""
    if None in (batch, epochs):
        raise PlanError("Batch size and epochs need a number each; fill them in.")
    recipe = Recipe(
        batch_size=int(batch),
        max_length=int(length) if length else None,
        epochs=int(epochs),
        learning_rate=rate or None,
        optimizer=optimizer,
        gradient_checkpointing=RECOMPUTING[recomputing],
    )
    return recipe, None if bits == NO_QUANTIZATION else bits, method


def infos(found: tuple[Effect, ...]) -> tuple[str, ...]:
    """A line under each field of `Levers.measured`: what another value would do to the peak."""
    fields = (BATCH, LENGTH, QUANTIZATION, CHECKPOINTING)
    return tuple(" · ".join(_line(one) for one in found if one.lever == field) for field in fields)


def _line(one: Effect) -> str:
    if one.bytes is None:
        return f"{one.value}: not possible here"
    return f"{one.value}: {'−' if one.bytes < 0 else '+'}{show_bytes(abs(one.bytes))}"
