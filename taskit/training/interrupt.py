"""Ctrl-C and SIGTERM: at once wherever nothing is half done, else as soon as it is done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Inside ``listening``, both signals raise KeyboardInterrupt, but inside ``deferred`` only at its end."""

    def __init__(self) -> None:
        self._waiting = self._asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt

    def _handle(self, *_: Any) -> None:
        if not self._waiting:
            raise KeyboardInterrupt
        self._asked = True
