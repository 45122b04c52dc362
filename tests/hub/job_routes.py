"""The Jobs service: machines, and Jobs that are started, asked after, read and cancelled."""

import json
from email.utils import formatdate

from tests.hub.local_job import LocalJob
from tests.hub.protocol import Answer, RefusedError, Request, World, endpoint
from tests.hub.state import as_json

T4 = {"type": "gpu", "model": "T4", "quantity": "1", "vram": "16 GB", "manufacturer": "Nvidia"}
L4S = {"type": "gpu", "model": "L4", "quantity": "4", "vram": "96 GB", "manufacturer": "Nvidia"}
OFFERED = (("cpu-basic", "2 vCPU", None, 167), ("t4-small", "4 vCPU", T4, 6667), ("l4x4", "48 vCPU", L4S, 63333))
SILENT = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
MACHINE = {**SILENT, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
ID = r"(?P<owner>[^/]+)/(?P<id>[0-9a-f]{24})"


@endpoint("GET", "/api/jobs/hardware")
def hardware(_: World, __: Request) -> Answer:
    return Answer(
        body=as_json(
            [
                {"name": name, "prettyName": name.upper(), "cpu": cpu, "ram": "16 GB", "accelerator": accelerator}
                | {"unitCostMicroUSD": cost, "unitCostUSD": cost / 1e6, "unitLabel": "minute"}
                for name, cpu, accelerator, cost in OFFERED
            ]
        )
    )


@endpoint("POST", r"/api/jobs/(?P<owner>[^/]+)")
def run_job(world: World, request: Request, owner: str) -> Answer:
    if request.account is None or request.account.name != owner:
        raise RefusedError(403, "missing permissions: job.write")
    spec = json.loads(request.body)
    if spec["flavor"] not in {name for name, *_ in OFFERED}:
        raise RefusedError(400, "unknown flavor")
    job = LocalJob(spec, owner, {**MACHINE, "HF_ENDPOINT": world.endpoint})
    world.state.jobs[job.id] = job
    job.start()
    return Answer(body=as_json(job.info()))


@endpoint("GET", rf"/api/jobs/{ID}")
def inspect(world: World, request: Request, owner: str, id: str) -> Answer:
    return Answer(body=as_json(_job(world, request, owner, id).info()))


@endpoint("GET", rf"/api/jobs/{ID}/logs")
def logs(world: World, request: Request, owner: str, id: str) -> Answer:
    """All lines so far as server-sent events."""
    lines = list(_job(world, request, owner, id).lines)
    body = "".join(f"data: {json.dumps({'data': text, 'timestamp': time})}\n\n" for time, text in lines)
    headers = {"Content-Type": "text/event-stream", "Date": formatdate(usegmt=True)}
    return Answer(body=body.encode(), headers=headers)


@endpoint("POST", rf"/api/jobs/{ID}/cancel")
def cancel(world: World, request: Request, owner: str, id: str) -> Answer:
    job = _job(world, request, owner, id)
    job.end("CANCELED")
    return Answer(body=as_json(job.info()))


def _job(world: World, request: Request, owner: str, id: str) -> LocalJob:
    if request.account is None or request.account.name != owner:
        raise RefusedError(403, "missing permissions: job.read")
    if id not in world.state.jobs:
        raise RefusedError(404, "Job not found")
    return world.state.jobs[id]
