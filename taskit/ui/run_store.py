"""The runs on disk: a folder for each visitor, and a queue of those that have not started.

    ROOT/VISITOR/RUN/          a run folder as the CLI makes it
    ROOT/VISITOR/RUN/TASK/     that of one dataset of several that were trained together
    ROOT/VISITOR/data/HASH/    the visitor's uploads that runs were started on
    ROOT/waiting/TIME RUN.json a run that has not started: its visitor, name and plan, or joint plan

All state is on disk, so that an app that was killed finds runs and queue again.
"""

import json
import re
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi

from taskit.data.sources import PREFIX
from taskit.errors import RunError, TaskITError
from taskit.files import read_json, write_json
from taskit.jobs.quote import Quote
from taskit.jobs.submitting import submit
from taskit.planning.plan import Plan
from taskit.together.plan import JointPlan
from taskit.together.training import start_together
from taskit.training.run_folder import LIVE
from taskit.training.runs import JOINT_PLAN, Run, list_runs, start
from taskit.ui.rentals import Rentals, is_rented

SLOTS = 1  # runs that train at the same time: each plan counts on the whole memory
POLL_SECONDS = 1.0  # between two reads of the queue


@dataclass(frozen=True, slots=True)
class Ticket:
    """A run in the queue; ``error`` is why it could not be started, empty while it waits."""

    path: Path
    visitor: str
    name: str
    error: str = ""


class RunStore:
    """The runs of all visitors under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.queue = root / "waiting"
        self.lock = threading.Lock()
        self.rentals = Rentals()

    def add(self, visitor: str, plan: Plan) -> str:
        """Put a plan into the queue; returns the name of the run that it will be."""
        plan, name = self._with_kept_data(visitor, plan), _name_for(plan)
        return self._enqueue(visitor, name, {"plan": plan.to_dict()})

    def add_together(self, visitor: str, plan: JointPlan) -> str:
        """Put the plan of several datasets into the queue; returns the name of the run that it will be."""
        plan = replace(plan, plans=tuple(self._with_kept_data(visitor, one) for one in plan.plans))
        return self._enqueue(visitor, f"together-{secrets.token_hex(6)}", {"together": plan.to_dict()})

    def _enqueue(self, visitor: str, name: str, planned: dict[str, object]) -> str:
        self.queue.mkdir(parents=True, exist_ok=True)
        write_json(
            self.queue / f"{time.time_ns()} {name}.json", {"visitor": visitor, "name": name, "error": "", **planned}
        )
        self.advance()
        return name

    def rent(self, visitor: str, plan: Plan, quote: Quote, token: str) -> str:
        """Train a plan on a machine rented with ``token``, at once; returns the name of the run.

        Raises:
            HubError: the Hub or its Jobs service refuses; then nothing is left behind.
        """
        plan, name = self._with_kept_data(visitor, plan), _name_for(plan)
        api = HfApi(token=token)
        self.rentals.follow(submit(plan, self.root / visitor / name, quote, api, tighten=True), token)
        return name

    def tickets(self) -> list[Ticket]:
        """The queue, the first one first."""
        found = [(path, read_json(path)) for path in sorted(self.queue.glob("*.json"))]
        return [Ticket(path, one["visitor"], one["name"], one["error"]) for path, one in found]

    def advance(self) -> None:
        """Start the next runs of the queue, as long as there is a free slot."""
        with self.lock:
            for ticket in [one for one in self.tickets() if not one.error]:
                if len(self.live()) >= SLOTS:
                    return
                whole = read_json(ticket.path)
                try:
                    folder = self.root / ticket.visitor / ticket.name
                    if "together" in whole:
                        start_together(JointPlan.from_dict(whole["together"], ticket.name), folder)
                    else:
                        start(Plan.from_dict(whole["plan"], ticket.name), folder)
                    ticket.path.unlink()
                except (TaskITError, OSError) as error:
                    write_json(ticket.path, {**whole, "error": str(error)})

    def live(self) -> list[Run]:
        """The runs that this machine trains now."""
        found = [Run(state.parent) for state in self.root.glob("*/*/state.json")]
        return [run for run in found if run.state.name in LIVE and not is_rented(run)]

    def runs(self, visitor: str) -> list[Run]:
        """A visitor's runs, the newest first, each followed by those of its datasets where it has several."""
        folder = self.root / visitor
        found = list_runs(folder) if folder.is_dir() else ()
        newest = sorted(found, key=lambda run: (run.path / "plan.json").stat().st_ctime, reverse=True)
        return [one for run in newest for one in (run, *self.parts(run))]

    def parts(self, run: Run) -> tuple[Run, ...]:
        """The finished runs of each dataset of a run with several; none for any other run."""
        return list_runs(run.path) if (run.path / JOINT_PLAN).exists() else ()

    def name_of(self, run: Run) -> str:
        """The name by which `find` finds it."""
        return "/".join(run.path.relative_to(self.root).parts[1:])

    def find(self, visitor: str | None, name: str) -> Run | Ticket:
        """A visitor's run, or with None anybody's, by its name, which cannot be guessed.

        Raises:
            RunError: there is none.
        """
        for ticket in self.tickets():
            if ticket.name == name and visitor in (None, ticket.visitor):
                return ticket
        top = (name or "").partition("/")[0]
        if re.fullmatch(r"[\w-]+", top):
            for state in self.root.glob(f"{visitor or '*'}/{top}/state.json"):
                run = Run(state.parent)
                for one in (run, *(self.parts(run) if top != name else ())):
                    if self.name_of(one) == name:
                        return one
        raise RunError(f"There is no run called {name or '(none)'} here; choose one of your runs.")

    def runs_ahead(self, ticket: Ticket) -> int:
        """How many runs come before a ticket's, those in training included."""
        ahead = [one for one in self.tickets() if not one.error and one.path.name < ticket.path.name]
        return len(ahead) + len(self.live())

    def remove(self, found: Run | Ticket) -> None:
        """Delete a run, or take a ticket out of the queue."""
        found.path.unlink(missing_ok=True) if isinstance(found, Ticket) else found.delete()

    def watch(self) -> None:
        """Advance the queue, and update rented runs, in threads for as long as the app runs."""

        def forever() -> None:
            while True:
                time.sleep(POLL_SECONDS)
                if any(self.queue.glob("*.json")):
                    self.advance()

        threading.Thread(target=forever, daemon=True, name="taskit-queue").start()
        self.rentals.watch()

    def _with_kept_data(self, visitor: str, plan: Plan) -> Plan:
        """The plan with its upload copied out of Gradio's cache, which is emptied from time to time."""
        source = plan.data.source
        if source.startswith(PREFIX) or self.root in Path(source).parents or not Path(source).is_file():
            return plan
        kept = self.root / visitor / "data" / plan.data.fingerprint[:16] / Path(source).name
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(kept.name + ".part")
            shutil.copyfile(source, part)
            part.rename(kept)
        return replace(plan, data=replace(plan.data, source=str(kept)))


def _name_for(plan: Plan) -> str:
    """A name made from the data's, with a suffix that cannot be guessed."""
    stem = re.sub(r"[^\w-]+", "-", Path(plan.data.source).stem).strip("-")[:40] or "run"
    return f"{stem}-{secrets.token_hex(6)}"


def describe(found: Run | Ticket, run_store: RunStore) -> dict[str, object]:
    """The state of a run for a program: name, state, message, runs ahead of it, step, steps, loss, metric."""
    if isinstance(found, Ticket):
        state = "failed" if found.error else "queued"
        return {"run": found.name, "state": state, "message": found.error, "ahead": run_store.runs_ahead(found)}
    state, progress = found.state, found.progress
    summary = {"run": run_store.name_of(found), "state": state.name, "message": state.message or progress.message}
    numbers = {name: getattr(progress, name) for name in ("epoch", "step", "steps", "loss", "metric", "seconds_left")}
    return json.loads(json.dumps({**summary, **numbers}))
