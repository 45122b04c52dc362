"""The fields of the plan step beside the budget, each with what turning it would do to the memory."""

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

NO_QUANTIZATION = "none"
RECOMPUTING = {"auto": None, "on": True, "off": False}


@dataclass(frozen=True, slots=True)
class Levers:
    """What a visitor may turn beside the budget; the order is that of the handlers' arguments."""

    batch: gr.Number
    length: gr.Number
    epochs: gr.Number
    rate: gr.Number
    optimizer: gr.Dropdown
    quantization: gr.Dropdown
    checkpointing: gr.Dropdown
    method: gr.Dropdown

    @property
    def fields(self) -> list[Any]:
        return [
            self.batch, self.length, self.epochs, self.rate, self.optimizer, self.quantization, self.checkpointing,
            self.method,
        ]  # fmt: skip

    @property
    def measured(self) -> list[Any]:
        """The fields that `infos` tells the effect of."""
        return [self.batch, self.length, self.quantization, self.checkpointing]


def draw_levers() -> Levers:
    recipe = Recipe()
    with gr.Row(elem_classes="levers"):
        return Levers(
            batch=gr.Number(recipe.batch_size, label="Batch size", precision=0, minimum=1),
            length=gr.Number(0, label="Longest text, tokens; 0 is whole", precision=0, minimum=0),
            epochs=gr.Number(recipe.epochs, label="Epochs", precision=0, minimum=1),
            rate=gr.Number(0, label="Learning rate; 0 is by the ranks"),
            optimizer=gr.Dropdown([*OPTIMIZERS], value=recipe.optimizer, label="Optimizer"),
            quantization=gr.Dropdown([NO_QUANTIZATION, *filter(None, QUANTIZATIONS)], label="Quantization"),
            checkpointing=gr.Dropdown([*RECOMPUTING], label="Checkpointing"),
            method=gr.Dropdown([*METHODS], value=next(iter(METHODS)), label="Method"),
        )


def explanations() -> str:
    """What each method does, behind one line."""
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
    """A line under each field of `weighed`: what another value would do to the peak."""
    fields = (BATCH, LENGTH, QUANTIZATION, CHECKPOINTING)
    return tuple(" · ".join(_line(one) for one in found if one.lever == field) for field in fields)


def _line(one: Effect) -> str:
    if one.bytes is None:
        return f"{one.value}: not possible here"
    return f"{one.value}: {'−' if one.bytes < 0 else '+'}{show_bytes(abs(one.bytes))}"
