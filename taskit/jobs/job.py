"""One Job: what is needed to find it again, to ask after it, and to start it anew."""

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import HfApi, JobInfo

from taskit.errors import HubError, RunError
from taskit.files import read_json, write_json
from taskit.jobs.failures import job_failures
from taskit.jobs.packing import IMAGE
from taskit.zoo.hub.pulling import token_in_use

FILE, ARCHIVE = "job.json", "pack.zip"
RUN = "run"  # the run folder, inside the Job and in the repository
SCRIPT = (
    'set -e; cd "$(mktemp -d)"; pip install --quiet "huggingface_hub==$HUB_VERSION"; '
    f'hf download "$TASKIT_REPO" {ARCHIVE} --repo-type dataset --revision "$TASKIT_REVISION" --local-dir .; '
    f"python -m zipfile -e {ARCHIVE} .; pip install --quiet --requirement requirements.txt; "
    'exec python -m taskit.jobs.worker "$@"'
)


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

    def started(self, api: HfApi) -> "Job":
        """Start it; the token goes as a secret, nowhere else.

        Raises:
            HubError: the service refuses, for want of credit or of a permission, say.
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


def signed_in(token: str | None = None) -> HfApi:
    """The Hub with the user's own token; None is the one that he logged in with.

    Raises:
        HubError: nobody is logged in.
    """
    token = token_in_use(token)
    if token is None:
        raise HubError("Jobs need a token with the permission job.write; run hf auth login, or set HF_TOKEN.")
    return HfApi(token=token)
