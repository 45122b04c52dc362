"""One Job: what is needed to find it again, to inspect it and to restart it; and what the service's errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import HfApi, JobInfo
from huggingface_hub.errors import HfHubHTTPError

from taskit.errors import HubError, HubUnavailableError, RunError
from taskit.files import read_json, write_json
from taskit.jobs.packing import IMAGE
from taskit.zoo.hub.failures import hub_failures
from taskit.zoo.hub.pulling import token_in_use

FILE, ARCHIVE = "job.json", "pack.zip"
RUN = "run"  # the run folder, inside the Job and in the repository
SCRIPT = (
    'set -e; cd "$(mktemp -d)"; pip install --quiet "huggingface_hub==$HUB_VERSION"; '
    f'hf download "$TASKIT_REPO" {ARCHIVE} --repo-type dataset --revision "$TASKIT_REVISION" --local-dir .; '
    f"python -m zipfile -e {ARCHIVE} .; pip install --quiet --requirement requirements.txt; "
    'exec python -m taskit.jobs.worker "$@"'
)
REFUSALS = {  # by the status code of the answer
    402: "{who} has no credit for Jobs; add some at https://huggingface.co/settings/billing and start again.",
    403: "The token may not use Jobs as {who}; make one with the permission job.write at "
    "https://huggingface.co/settings/tokens and log in with it (hf auth login).",
    404: "The Job is no longer known to Hugging Face; resume the run to start another one.",
}


@dataclass(frozen=True, slots=True)
class Job:
    """``repo`` is the user's private dataset repository with the archive at ``revision``, and with the run.

    ``events_before`` counts the lines of events.jsonl that earlier Jobs of the same run have left.
    """

    namespace: str
    repo: str
    revision: str
    flavor: str
    timeout_seconds: int
    tighten: bool = False
    id: str = ""
    url: str = ""
    events_before: int = 0

    @classmethod
    def read(cls, folder: Path) -> "Job":
        try:
            return cls(**read_json(folder / FILE))
        except TypeError as error:
            raise RunError(f"{folder / FILE} is of another version; use the TaskIT that started the Job.") from error

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self))

    def start(self, api: HfApi) -> "Job":
        """Start it, and return it with its id and address; the token is passed as a secret, nowhere else.

        Raises:
            HubError: the service refuses, for example because credit or a permission is missing.
        """
        with job_failures("starting the Job", self.namespace):
            info = api.run_job(
                image=IMAGE,
                command=["sh", "-c", SCRIPT, "sh", self.repo, *(["--tighten"] if self.tighten else [])],
                env={
                    "TASKIT_REPO": self.repo,
                    "TASKIT_REVISION": self.revision,
                    "HUB_VERSION": version("huggingface_hub"),
                },
                secrets={"HF_TOKEN": str(api.token)},
                flavor=self.flavor,
                timeout=self.timeout_seconds,
                name=self.repo.rpartition("/")[2],
                namespace=self.namespace,
            )
        return replace(self, id=info.id, url=info.url)

    def inspect(self, api: HfApi) -> JobInfo:
        with job_failures("asking after the Job", self.namespace):
            return api.inspect_job(job_id=self.id, namespace=self.namespace)

    def cancel(self, api: HfApi) -> None:
        with job_failures("stopping the Job", self.namespace):
            api.cancel_job(job_id=self.id, namespace=self.namespace)

    def log(self, api: HfApi) -> list[str]:
        """All lines so far."""
        with job_failures("reading the Job's log", self.namespace):
            return list(api.fetch_job_logs(job_id=self.id, namespace=self.namespace))


def authenticated_api(token: str | None = None) -> HfApi:
    """The client of the Hub with the user's token; None is the one that he logged in with.

    Raises:
        HubError: nobody is logged in.
    """
    token = token_in_use(token)
    if token is None:
        raise HubError("Jobs need a token with the permission job.write; run hf auth login, or set HF_TOKEN.")
    return HfApi(token=token)


@contextmanager
def job_failures(doing: str, who: str) -> Iterator[None]:
    """Raise every failure of the Jobs service inside as a HubError; ``who`` is the account of the Job."""
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
