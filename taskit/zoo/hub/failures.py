"""Failures of the Hub: a timeout for every request, retries where they can help, and one sentence for each."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub import errors, get_session

from taskit.errors import HubError, HubUnavailableError

Answer = TypeVar("Answer")
TRIES = 4
LONGEST_WAIT = 60  # seconds; when the Hub asks for more, the failure is raised at once
READ_TIMEOUT, WRITE_TIMEOUT = 10, 30  # seconds without a byte; the Hub works on a commit before it answers
BUSY = (408, 425, 429, 500, 502, 503, 504)


@contextmanager
def hub_failures(doing: str, repo: str) -> Iterator[None]:
    """Turn every failure of huggingface_hub inside, timeouts too, into a HubError.  ``doing`` completes "while ...".

    Raises HubUnavailableError where the same request may succeed later, HubError otherwise.
    """
    _set_timeouts()
    try:
        yield
    except HubError:
        raise
    except (errors.HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        raise explain(error, doing, repo) from error
    except Exception as error:  # the client's transport errors are httpx's or httpx2's, by its version
        if not type(error).__module__.startswith("httpx"):
            raise
        raise explain(error, doing, repo) from error


def _set_timeouts() -> None:
    """Make every request of huggingface_hub that names no timeout end in an error after READ_ or WRITE_TIMEOUT.

    huggingface_hub sets no limit for listings and commits, and would wait for ever.  Its present session is taken
    as it is, with the proxies and certificates that a user may have given it.
    """
    hooks = get_session().event_hooks["request"]
    if _set_timeout not in hooks:
        hooks.append(_set_timeout)


def _set_timeout(request: Any) -> None:
    seconds = READ_TIMEOUT if request.method in ("GET", "HEAD") else WRITE_TIMEOUT
    waits = request.extensions["timeout"]
    request.extensions["timeout"] = {what: wait or seconds for what, wait in waits.items()}


def patiently(call: Callable[[], Answer], doing: str, repo: str) -> Answer:
    """``call()``, repeated up to three times while the Hub is unavailable; for requests that change nothing."""
    for attempt in range(1, TRIES + 1):
        try:
            with hub_failures(doing, repo):
                return call()
        except HubUnavailableError as failure:
            wait_before(attempt, failure)
    raise AssertionError("the last attempt returns or raises")


def wait_before(attempt: int, failure: HubUnavailableError) -> None:
    """Wait after the failed ``attempt`` (from 1), or raise ``failure`` when another attempt cannot help."""
    wait = 2 ** (attempt - 1) if failure.wait is None else failure.wait + 1
    cause = failure.__cause__ and _root(failure.__cause__)
    hopeless = isinstance(cause, errors.OfflineModeIsEnabled) or _is_timeout(cause)
    if attempt >= TRIES or wait > LONGEST_WAIT or hopeless:
        raise failure
    time.sleep(wait)


def explain(error: BaseException, doing: str, repo: str) -> HubError:
    """The sentence for one exception of huggingface_hub."""
    error = _root(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubUnavailableError("The Hub was not asked, because HF_HUB_OFFLINE is set; unset it or name a folder.")
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{repo} is gated; accept its terms on the Hub, log in with hf auth login and try again.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"There is no {repo} on the Hub that you may see; check its name, or log in with hf auth login."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{repo} has no such revision on the Hub; check what follows the @, or leave it out.")
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return HubError(f"{repo} lacks a file that it listed; try again in a moment.")
    if isinstance(error, errors.HFValidationError):
        return HubError(f"{repo!r} is no name on the Hub; write OWNER/NAME.")
    if isinstance(error, errors.HfHubHTTPError):
        return _by_status(error, doing, repo)
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        reason = " ".join(str(error).split())[:300].rstrip(".")
        return HubError(f"The Hub refuses {repo} ({reason}); mend that and try again.")
    if _is_timeout(error):
        return HubUnavailableError(
            f"The Hub did not answer while {doing}; check the network and try again in some minutes."
        )
    return HubUnavailableError(f"The connection to the Hub broke while {doing}; check the network and try again.")


def _by_status(error: errors.HfHubHTTPError, doing: str, repo: str) -> HubError:
    status = error.response.status_code
    if status == 401:
        return HubError(
            "The Hub does not accept the token, which may have expired; log in again (hf auth login) or give another."
        )
    if status == 403:
        return HubError(
            f"The token may not do that with {repo}; use one with write access to {repo.split('/')[0]} "
            "(hf auth login), or another owner."
        )
    if status == 404:
        return HubError(f"The Hub found nothing while {doing}; check the name {repo}.")
    if status in (409, 412):
        return HubError(f"{repo} was changed by someone else while {doing}; look at it and try again.")
    if status in BUSY:
        wait = error.response.headers.get("Retry-After", "")
        seconds = int(wait) if wait.isdigit() else None
        when = f"in {seconds} seconds" if seconds else "in some minutes"
        trouble = "asks to slow down" if status == 429 else f"has trouble of its own (HTTP {status})"
        return HubUnavailableError(f"The Hub {trouble} while {doing}; try again {when}.", seconds)
    return HubError(f"The Hub refuses {repo} with HTTP {status} while {doing}; see status.huggingface.co.")


def _is_timeout(error: BaseException | None) -> bool:
    """Whether the Hub did not answer in time; the user has waited once and does not wait again."""
    return type(error).__name__ in ("ConnectTimeout", "ReadTimeout", "WriteTimeout")


def _root(error: BaseException) -> BaseException:
    """The failure that huggingface_hub wrapped in others."""
    wrappers = (errors.LocalEntryNotFoundError, RuntimeError)
    while isinstance(error, wrappers) and error.__cause__:
        error = error.__cause__
    return error
