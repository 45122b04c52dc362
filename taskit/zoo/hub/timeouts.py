"""How long the Hub may be silent: huggingface_hub sets no limit for listings and commits, and would wait for ever."""

from typing import Any

from huggingface_hub import get_session

READING, WRITING = 10, 30  # seconds without a byte; a commit is worked on before it is answered


def limit_silence() -> None:
    """Make every request of huggingface_hub that names no timeout end in an error after such a silence.

    Its present session is taken as it is, with the proxies and certificates that a user may have given it.
    """
    hooks = get_session().event_hooks["request"]
    if _limit not in hooks:
        hooks.append(_limit)


def _limit(request: Any) -> None:
    seconds = READING if request.method in ("GET", "HEAD") else WRITING
    waits = request.extensions["timeout"]
    request.extensions["timeout"] = {what: wait or seconds for what, wait in waits.items()}
