"""What the steps share: the tabs, and the state that one step passes to the next."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from taskit.planning.budget import Budget
from taskit.planning.plan import Plan

STEPS = ("Model and zoo", "Data", "Budget and plan", "Train", "Result", "Runs")
NO_SUMMARY = "\N{NO-BREAK SPACE}"  # keeps every tab two lines high
MODEL, DATA, PLAN, TRAIN, RESULT, RUNS = range(len(STEPS))


@dataclass(frozen=True, slots=True)
class Checked:
    """A dataset that was checked: its source, the columns (role, name) named by hand, and a short summary."""

    source: str
    columns: tuple[tuple[str, str], ...]
    summary: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """A draft on the screen, or the rehearsed plan that it became."""

    budget: Budget
    plan: Plan
    rehearsed: bool


@dataclass(frozen=True, slots=True)
class Page:
    """The shared components; the states hold str, str, Checked, FrontierView, Chosen and a run's name, or None."""

    blocks: gr.Blocks
    root: Path
    tabs: gr.Tabs
    steps: tuple[gr.Tab, ...]
    backbone: gr.State
    zoo: gr.State
    checked: gr.State
    frontier_view: gr.State
    chosen: gr.State
    run: gr.State

    def load(self, handler: Callable[..., Any], inputs: Any, outputs: Any) -> None:
        """Call ``handler`` whenever the page is opened."""
        self.blocks.load(handler, inputs, outputs, api_visibility="private", show_progress="hidden")

    def go(self, event: Callable[..., Any], step: int) -> Any:
        """Open a step on ``event`` (``button.click``, ``job.then``)."""
        return event(lambda: gr.Tabs(selected=step), outputs=self.tabs, queue=False, api_visibility="private")


def label(step: int, summary: str = "", *, done: bool = False) -> str:
    """Two lines: the step, with a tick where it is done, and what was chosen in it."""
    return f"{'✓ ' if done else ''}{STEPS[step]}\n{summary or NO_SUMMARY}"


def tab(step: int, summary: str = "", *, done: bool = False, open: bool = True) -> dict[str, Any]:
    """An update of a step's tab."""
    return gr.update(label=label(step, summary, done=done), interactive=open)
