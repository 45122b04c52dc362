"""The machines on offer, by the Hub's own list."""

import re
from dataclasses import dataclass

from huggingface_hub import HfApi, JobHardwareInfo

from taskit.errors import HubError
from taskit.hub.failures import patiently

SECONDS = {"second": 1, "minute": 60, "hour": 3600}


@dataclass(frozen=True, slots=True)
class Machine:
    """One flavor; ``device`` is "cuda" or "cpu", ``title`` what a person calls it."""

    flavor: str
    title: str
    device: str
    cores: int
    dollars_per_second: float


def find_machine(api: HfApi, flavor: str) -> Machine:
    """The machine called ``flavor``.

    Raises:
        HubError: there is none, or it has several GPUs, of which a run would leave all but one idle.
    """
    offered = patiently(api.list_jobs_hardware, "listing the machines", flavor)
    usable = [one for one in offered if _accelerators(one) <= 1 and one.unit_label in SECONDS]
    found = next((one for one in usable if one.name == flavor), None)
    if found is None:
        why = (
            "has several GPUs, of which a run uses one" if flavor in {o.name for o in offered} else "is not on offer"
        )
        raise HubError(f"{flavor} {why}; choose one of {', '.join(one.name for one in usable)}.")
    cores = re.match(r"\d+", found.cpu)
    return Machine(
        flavor=flavor,
        title=f"{found.pretty_name}, {found.cpu}, {found.ram}",
        device="cuda" if found.accelerator else "cpu",
        cores=int(cores[0]) if cores else 1,
        dollars_per_second=found.unit_cost_usd / SECONDS[found.unit_label],
    )


def _accelerators(hardware: JobHardwareInfo) -> int:
    return int(hardware.accelerator.quantity) if hardware.accelerator else 0
