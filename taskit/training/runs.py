"""Runs as other processes see them: start one, watch it through its folder, stop, resume, delete, list."""

import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

from taskit.errors import RunError
from taskit.planning.plan import Plan
from taskit.training.ownership import STOP, Owner, locked, read_owner, write_owner
from taskit.training.results import Result
from taskit.training.run_folder import LIVE, Event, RunFolder, State

JOINT_PLAN = "together.json"  # in the folder of several datasets that are trained at once
STOP_PATIENCE = 10.0  # seconds: an owner writes that it has stopped before it lets go of the folder


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is, by its events; ``metric`` is the validation's, None before the first one.

    ``seconds_left`` goes by the optimizer steps since the last start, None before there are two.
    """

    message: str
    epoch: int
    step: int
    steps: int
    loss: float | None
    metric: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of a list of runs."""

    path: str
    state: str
    message: str
    progress: RunProgress


class Run:
    """One run folder, read only: whatever is changed, its owner changes.

        run = start(plan, "runs/pets")
        while run.state.name in LIVE:
            print(run.progress)

    Raises:
        RunError: ``path`` is no run folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(path)
        self.folder.read_state()

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def state(self) -> State:
        """The state in the folder, or what it cannot hold: a stop asked for, an owner that died unsaved."""
        owner = read_owner(self.path)
        dead = owner is not None and owner.process() is None
        state = self.folder.read_state()  # after the look at the owner, whose last state it then holds
        if state.name not in LIVE or owner is None:
            return state
        asked = (self.path / STOP).exists()
        if not dead:
            return State("stopping") if asked else state
        if self.result is not None:  # it was killed between result.json and its last state
            return State("done")
        if asked:
            return State("stopped")
        return State("failed", f"Process {owner.pid} of this run is gone; see log.txt, then taskit runs resume.")

    @property
    def plan(self) -> Plan:
        return Plan.load(self.path / "plan.json")

    @property
    def result(self) -> Result | None:
        """What the run gave, None before it is done."""
        if not (self.path / "result.json").exists():
            return None
        try:
            return Result.from_dict(self.folder.read_json("result.json"))
        except (TypeError, KeyError) as error:
            raise RunError(f"{self.path} has a result.json of another version; train again.") from error

    def events(self, since: int = 0) -> tuple[Event, ...]:
        """The events so far, without the first ``since``, which a watcher has seen already."""
        return self.folder.read_events()[since:]

    @property
    def progress(self) -> RunProgress:
        events = self.events()
        begun = max((i for i, event in enumerate(events) if event.kind == "resumed"), default=0)
        steps = [event for event in events[begun:] if event.kind == "step"]
        last = next((event for event in reversed(events) if event.steps), Event("note"))
        metrics = [event.metric for event in events if event.kind == "epoch"]
        return RunProgress(
            message=next((event.message for event in reversed(events) if event.message), ""),
            epoch=last.epoch,
            step=last.step,
            steps=last.steps,
            loss=steps[-1].loss if steps else None,
            metric=metrics[-1] if metrics else None,
            seconds_left=_seconds_left(steps),
        )

    @property
    def summary(self) -> RunSummary:
        state, progress = self.state, self.progress
        return RunSummary(str(self.path), state.name, state.message or progress.message, progress)

    def stop(self) -> None:
        """Ask the owner to save and stop; returns at once; the state is ``stopped`` when it is done.

        Raises:
            RunError: nobody trains here.
        """
        owner = read_owner(self.path)
        process = owner.process() if owner and self.state.name in LIVE else None
        if process is None:
            raise RunError(f"The run in {self.path} is {self.state.name}; only a running one can be stopped.")
        (self.path / STOP).touch()
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            return  # it ended by itself meanwhile
        except psutil.AccessDenied as error:
            raise RunError(f"Process {process.pid} belongs to another user; ask them to stop it.") from error

    def resume(self) -> None:
        """Go on from the last checkpoint, in a process of its own.

        Raises:
            RunError: the run is finished or in use.
        """
        if self.result is not None:
            raise RunError(f"The run in {self.path} is finished; start a new one in another folder.")
        with locked(self.path, 0.0 if self.state.name in LIVE else STOP_PATIENCE):
            if self.state.name in LIVE:
                raise RunError(f"The run in {self.path} is {self.state.name} already; wait for it or stop it first.")
            launch(self.folder)

    def delete(self) -> None:
        """Remove the folder and all that is in it.

        Raises:
            RunError: the run is in use, or its folder cannot be removed.
        """
        with locked(self.path, 0.0 if self.state.name in LIVE else STOP_PATIENCE):
            if self.state.name in LIVE:
                raise RunError(f"The run in {self.path} is {self.state.name}; stop it first with taskit runs stop.")
            try:
                (self.path / "state.json").unlink()  # first: what is half removed is no run any more
                shutil.rmtree(self.path)
            except OSError as error:
                raise RunError(f"{self.path} cannot be removed ({error.strerror}); remove it by hand.") from error


def start(plan: Plan, folder: str | Path) -> Run:
    """Train ``plan`` into ``folder`` in a process of its own, which outlives this one.

    Raises:
        RunError: the folder is taken or cannot be written.
    """
    made = RunFolder(folder)
    made.reserve()
    made.write_json("plan.json", plan.to_dict())
    launch(made)
    return Run(folder)


def list_runs(root: str | Path = ".") -> tuple[Run, ...]:
    """The runs whose folders lie in ``root``, by name; what is no readable run is left out.

    Raises:
        RunError: no such folder.
    """
    if not Path(root).is_dir():
        raise RunError(f"{root} is no folder; give the one that holds your run folders.")
    return tuple(run for path in sorted(Path(root).glob("*/state.json")) if (run := _readable(path.parent)))


def _readable(path: Path) -> Run | None:
    try:
        return Run(path)
    except RunError:
        return None


def launch(folder: RunFolder) -> None:
    """Queue the run and start its process, in a session of its own: a closed terminal does not reach it."""
    path = folder.path.resolve()
    verb = ["together"] if (path / JOINT_PLAN).exists() else ["train", str(path / "plan.json")]
    words = [*verb, "--out", str(path), "--resume"]
    folder.set_state("queued")
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskit", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    write_owner(folder.path, Owner.of(process.pid))
    threading.Thread(target=process.wait, daemon=True).start()  # so that it leaves no zombie here


def _seconds_left(steps: list[Event]) -> float | None:
    if len(steps) < 2 or steps[-1].step == steps[0].step:
        return None
    first, last = steps[0], steps[-1]
    return round((last.time - first.time) / (last.step - first.step) * (last.steps - last.step), 1)
