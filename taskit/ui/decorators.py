"""Decorators of the page's handlers: report errors in the page, return freed memory, run on ZeroGPU."""

import ctypes
import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from taskit.errors import TaskITError
from taskit.training.run_folder import DEVICE_ERRORS
from taskit.ui.markup import notice

Handler = TypeVar("Handler", bound=Callable[..., Any])
GPU_SECONDS = 60  # for one call on ZeroGPU: half of what a guest of the Hub has for a day
log = logging.getLogger("taskit.ui")


def report_errors(outputs: int) -> Callable[[Callable[..., tuple]], Callable[..., tuple]]:
    """Decorate a handler that returns ``outputs`` values: a notice is returned before them, empty without an error.

    After an error the notice is one sentence, and the other outputs stay as they are (``gr.skip``).
    """

    def decorate(handler: Callable[..., tuple]) -> Callable[..., tuple]:
        @functools.wraps(handler)
        def reporting(*args: Any, **options: Any) -> tuple:
            try:
                return ("", *handler(*args, **options))
            except Exception as error:
                return (notice(error_message(error)), *(gr.skip() for _ in range(outputs)))

        return reporting

    return decorate


def error_message(error: Exception) -> str:
    """One sentence for the visitor; an error that is not TaskIT's own is logged with its traceback."""
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


def trim_memory(handler: Handler) -> Handler:
    """Decorate a handler that frees much memory when it returns: glibc returns it to the system (``malloc_trim``).

    Without that, glibc keeps freed memory, and the app runs for weeks.  Does nothing with another C library.
    """

    @functools.wraps(handler)
    def trimmed(*args: Any, **options: Any) -> Any:
        try:
            return handler(*args, **options)
        finally:
            if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
                trim(0)

    return trimmed  # type: ignore[return-value]


def run_on_zero_gpu(function: Handler) -> Handler:
    """Decorate a function that runs on the GPU of a ZeroGPU Space, for at most GPU_SECONDS and in another process.

    Arguments and return value are pickled on the way, and of an exception only the name comes back (spaces 0.51),
    so errors are returned.  Without the package `spaces`, or on other hardware, the function runs in this process.
    """
    try:
        from spaces import GPU  # pyright: ignore[reportMissingImports] - installed on Spaces only
    except ImportError:
        return function
    return GPU(duration=GPU_SECONDS)(function)
