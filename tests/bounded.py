"""A child process that the kernel ends as soon as one case takes too much time, or all take too much memory."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")
MEMORY = 200 * 10**6  # bytes of address space beyond what the child has at its start
SECONDS = 2  # of processor time for one case
ASLEEP = 60  # seconds of the clock for one case, which may wait for nothing; a loaded machine is slow


def run_bounded(
    cases: Iterable[Callable[[], Answer]], *, seconds: float = SECONDS, asleep: float = ASLEEP
) -> list[Answer]:
    """What each case answers, all in one child; an AssertionError with the place of the case that ended it."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_work, args=(cases, seconds, asleep, sending))
    child.start()
    sending.close()
    answers: list[Answer] = []
    try:
        while True:
            answers.append(receiving.recv())
    except EOFError:
        child.join()
    code = child.exitcode
    assert code == 0, f"case {len(answers)} ended the child: {signal.Signals(-code).name if code < 0 else 'an error'}"
    return answers


def _work(cases: Iterable[Callable[[], Answer]], seconds: float, asleep: float, sending) -> None:
    """Signals keep their default action, which ends the process even inside of C or Rust."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for case in cases:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, asleep)
        answer = case()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sending.send(answer)
