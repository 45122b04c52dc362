"""ZeroGPU: a Space that lends a GPU for a minute to a decorated function, in a process of its own.

What goes in and what comes out is pickled on the way, and of an error only the name comes back (spaces 0.51).
Without the package `spaces`, or on other hardware, the function runs right here.
"""

from collections.abc import Callable
from typing import TypeVar

Handler = TypeVar("Handler", bound=Callable)
LENT_SECONDS = 60  # half of what a guest of the Hub has for a day


def lend_gpu(function: Handler) -> Handler:
    """Decorate a function that is worth a GPU; all that it takes and gives must be picklable, errors included."""
    try:
        from spaces import GPU  # pyright: ignore[reportMissingImports] - Spaces alone have it
    except ImportError:
        return function
    return GPU(duration=LENT_SECONDS)(function)
