"""Every handler answers: with what it made, or with one sentence in the page that says what was wrong."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from taskit.errors import TaskITError
from taskit.training.run_folder import DEVICE_ERRORS
from taskit.ui.markup import notice

log = logging.getLogger("taskit.ui")


def report_errors(outputs: int) -> Callable[[Callable[..., tuple]], Callable[..., tuple]]:
    """Decorate a handler that returns ``outputs`` values: a notice comes first, empty where all went well.

    After an error the other outputs stay as they are, so that nothing of the visitor's is lost.
    """

    def decorate(handler: Callable[..., tuple]) -> Callable[..., tuple]:
        @functools.wraps(handler)
        def answer(*args: Any, **options: Any) -> tuple:
            try:
                return ("", *handler(*args, **options))
            except Exception as error:
                return (notice(sentence(error)), *(gr.skip() for _ in range(outputs)))

        return answer

    return decorate


def sentence(error: Exception) -> str:
    """What the visitor reads; an error that TaskIT did not foresee goes to the log with its traceback."""
    if isinstance(error, TaskITError):
        return str(error)
    log.error("unforeseen", exc_info=error)
    if isinstance(error, MemoryError):
        return "The app's machine ran out of memory; try again later, or take a smaller model."
    if type(error).__name__ in DEVICE_ERRORS:
        return "The app's GPU is busy or has too little memory left; try again later, or take a smaller model."
    if isinstance(error, OSError) and error.strerror:
        return f"The app's machine could not do that ({error.strerror}); nothing was lost, try again later."
    return f"Something happened that TaskIT did not foresee ({type(error).__name__}); its log says more."
