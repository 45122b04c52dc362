"""What a person reads: bytes in binary units, and on a terminal a spinner and a bar without output of libraries."""

import os
import sys
from contextlib import contextmanager
from typing import Any


@contextmanager
def status() -> Any:
    """A spinner on stderr that says what is being done."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as spinner:

        def on_progress(message: str) -> None:
            if console.is_terminal:
                spinner.update(message)
            else:
                print(message, file=sys.stderr)

        yield on_progress


@contextmanager
def progress_bar() -> Any:
    """A bar on stderr with step, loss, metric and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("loading the backbone", total=None)

        def watch(event: Any) -> None:
            if event.kind == "note":
                bar.update(task, description=event.message)
            elif event.kind == "step":
                bar.update(task, completed=event.step, total=event.steps, description=f"loss {event.loss:.3f}")
            elif event.kind == "epoch":
                bar.console.print(f"epoch {event.epoch}: validation {event.metric:.4f}")

        yield watch


@contextmanager
def quiet_libraries() -> Any:
    """Our lines only: no progress bars and no chatter of the libraries beneath."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("datasets", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        if not os.environ.get("TASKIT_DEBUG"):
            warnings.simplefilter("ignore")
        yield


def show_saving(size: int) -> str:
    """A number of bytes by which something shrinks, with its sign."""
    return f"{'+' if size < 0 else '−'}{show_bytes(abs(size))}"


def show_bytes(size: int) -> str:
    """Binary units for people: ``show_bytes(1536) == '1.5 KiB'``."""
    amount, units = float(abs(size)), ["B", "KiB", "MiB", "GiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    digits = f"{amount:.0f}" if units[0] == "B" else f"{amount:.3g}" if amount < 1000 else f"{amount:.0f}"
    return f"{'-' if size < 0 else ''}{digits} {units[0]}"
