"""What the Jobs service's refusals mean, each as one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError

from taskit.errors import HubError, HubUnavailableError
from taskit.zoo.hub.failures import hub_failures

REFUSALS = {
    402: "{who} has no credit for Jobs; add some at https://huggingface.co/settings/billing and start again.",
    403: "The token may not use Jobs as {who}; make one with the permission job.write at "
    "https://huggingface.co/settings/tokens and log in with it (hf auth login).",
    404: "The Job is no longer known to Hugging Face; resume the run to start another one.",
}


@contextmanager
def job_failures(doing: str, who: str) -> Iterator[None]:
    """Turn every failure of the Jobs service inside into a HubError; ``who`` is the account asked for."""
    try:
        with hub_failures(doing, who):
            yield
    except HubUnavailableError:
        raise
    except HubError as failure:
        cause = failure.__cause__
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        if status in REFUSALS:
            raise HubError(REFUSALS[status].format(who=who)) from cause
        raise
