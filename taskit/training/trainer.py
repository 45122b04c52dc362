"""Train exactly what a plan says, and leave a run folder with a plain PEFT adapter in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taskit.backbone.processors import make_collator
from taskit.data import Collator, Dataset, load
from taskit.errors import BudgetError, RunError
from taskit.planning.plan import Plan
from taskit.planning.planner import reprice
from taskit.training.checkpoint import require_device
from taskit.training.fit_first import MisfitError, tightened
from taskit.training.interrupt import Interrupts
from taskit.training.lock import Owner, locked, write_owner
from taskit.training.one_run import Training
from taskit.training.run_folder import Result, RunFolder, Watch
from taskit.training.sharding import require_processes
from taskit.training.tracking import Tracker, make_accelerator, tracked


def train(
    plan: Plan,
    out: str | Path,
    *,
    resume: bool = False,
    tighten: bool = False,
    tracker: Tracker | None = None,
    watch: Watch = lambda _: None,
) -> Result:
    """Train ``plan`` into the run folder ``out``; ``watch`` sees every event as it happens.

    The best epoch by a validation tenth of the training rows is kept.  With ``resume`` the run in ``out``, queued
    or stopped, goes on by its own plan from its last checkpoint and ends as it would have without the stop.  With
    ``tighten`` a plan that does not fit is trained in smaller micro-batches instead of being refused.

    Under ``accelerate launch`` or ``torchrun`` every process calls this; the first one alone writes.

    Raises:
        RunError: the folder is taken or in use, or the data is no longer what the plan was made for.
        BudgetError: the plan's ranks, perhaps edited, or its longest batch need more than its budget.
    """
    folder = RunFolder(out)
    if resume:
        plan = _begun(folder)
    accelerator = make_accelerator(tracker, folder.path, plan.training.shards)
    require_processes(plan, accelerator)
    prepared = None if resume else _prepare(plan, tighten)  # before the folder, which bad input should not make
    if not resume and accelerator.is_main_process:
        folder.reserve()
    accelerator.wait_for_everyone()
    interrupts = Interrupts()
    with owning(folder, accelerator.is_main_process), interrupts.listening():
        plan, data, collator = prepared or _prepare(plan, tighten)
        while True:
            if accelerator.is_main_process:
                folder.write_json("plan.json", plan.to_dict())
            try:
                with tracked(accelerator, plan):
                    return Training(plan, data, collator, accelerator, folder, watch, interrupts).run()
            except MisfitError:
                if not tighten:
                    raise
            plan = reprice(tightened(plan), data, collator)


def _prepare(plan: Plan, tighten: bool) -> tuple[Plan, Dataset, Collator]:
    """The plan with its price checked, and what it is trained on."""
    data = load_data(plan)
    collator = make_collator(plan.backbone, plan.data.task, plan.training.max_length)
    while True:
        try:
            return reprice(plan, data, collator), data, collator
        except BudgetError:
            if not tighten:
                raise
            plan = tightened(plan)


def _begun(folder: RunFolder) -> Plan:
    """The plan of a run that may go on."""
    plan = Plan.from_dict(folder.read_json("plan.json"), str(folder.path / "plan.json"))
    if folder.exists():
        folder.read_state()  # refused where another version made it
    require_device(folder.checkpoints)
    return plan


def load_data(plan: Plan) -> Dataset:
    """The data that ``plan`` was made for.

    Raises:
        RunError: it has changed since.
    """
    data = load(plan.data.source, columns=dict(plan.data.columns), seed=plan.seed)
    if data.info.fingerprint != plan.data.fingerprint:
        raise RunError(f"{plan.data.source} has changed since the plan was made; run taskit plan again.")
    return data


@contextmanager
def owning(folder: RunFolder, main: bool) -> Iterator[None]:
    """Lock, owner and state of the run; only the main process has to do with them."""
    if not main:
        yield
        return
    with locked(folder.path):
        if (folder.path / "result.json").exists():
            raise RunError(f"The run in {folder.path} is finished; start a new one with another --out.")
        write_owner(folder.path, Owner.of(os.getpid()))
        folder.mend_events()
        with folder.running():
            yield
