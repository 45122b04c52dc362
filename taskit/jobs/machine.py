"""The machines on offer, as the Hub lists them."""

import re
from dataclasses import dataclass

from huggingface_hub import HfApi, JobHardwareInfo

from taskit.errors import HubError
from taskit.zoo.hub.failures import patiently

SECONDS = {"second": 1, "minute": 60, "hour": 3600}
GB = 10**9  # in which the list counts memory


@dataclass(frozen=True, slots=True)
class Machine:
    """One flavor; ``device`` is "cuda" or "cpu", ``title`` a description for people.

    ``memory_bytes`` is the device's, 0 where the list does not state it.
    """

    flavor: str
    title: str
    device: str
    cores: int
    memory_bytes: int
    dollars_per_second: float

    @property
    def dollars_per_hour(self) -> float:
        return self.dollars_per_second * SECONDS["hour"]


def list_machines(api: HfApi) -> tuple[Machine, ...]:
    """All machines that a run can use, the cheapest first.

    Raises:
        HubError: the Hub does not answer.
    """
    return tuple(sorted(map(_machine, _usable(_offered(api))), key=lambda one: one.dollars_per_second))


def find_machine(api: HfApi, flavor: str) -> Machine:
    """The machine called ``flavor``.

    Raises:
        HubError: there is none, or it has several GPUs, of which a run would leave all but one idle.
    """
    offered = _offered(api)
    usable = _usable(offered)
    found = next((one for one in usable if one.name == flavor), None)
    if found is None:
        why = (
            "has several GPUs, of which a run uses one" if flavor in {o.name for o in offered} else "is not on offer"
        )
        raise HubError(f"{flavor} {why}; choose one of {', '.join(one.name for one in usable)}.")
    return _machine(found)


def _offered(api: HfApi) -> list[JobHardwareInfo]:
    return patiently(api.list_jobs_hardware, "listing the machines", "the list of machines")


def _usable(offered: list[JobHardwareInfo]) -> list[JobHardwareInfo]:
    return [one for one in offered if _accelerators(one) <= 1 and one.unit_label in SECONDS]


def _machine(found: JobHardwareInfo) -> Machine:
    memory = found.accelerator.vram if found.accelerator else found.ram
    return Machine(
        flavor=found.name,
        title=f"{found.pretty_name}, {found.cpu}, {found.ram}",
        device="cuda" if found.accelerator else "cpu",
        cores=_first_number(found.cpu) or 1,
        memory_bytes=_first_number(memory) * GB,
        dollars_per_second=found.unit_cost_usd / SECONDS[found.unit_label],
    )


def _first_number(words: str) -> int:
    """4 of "4 vCPU", 16 of "16 GB", 0 where there is none."""
    found = re.match(r"\d+", words)
    return int(found[0]) if found else 0


def _accelerators(hardware: JobHardwareInfo) -> int:
    return int(hardware.accelerator.quantity) if hardware.accelerator else 0
