"""The verb ``taskit runs``: list, watch, stop, resume, delete; runs of Jobs as well as those of this machine."""

import argparse
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from taskit.cli.common import show
from taskit.errors import HubError, RunError
from taskit.terminal import progress_bar

if TYPE_CHECKING:
    from taskit.training.runs import Run

ACTIONS = {
    "watch": "show how one run goes on, until it ends",
    "stop": "stop one run",
    "resume": "resume one run",
    "delete": "delete one run",
}
POLL_SECONDS, HUB_POLL_SECONDS = 0.5, 10.0  # between two reads of a run folder, and two requests to the Hub


def runs(options: argparse.Namespace) -> None:
    from taskit.cli.tables import runs_table
    from taskit.jobs.remote import open_run
    from taskit.training.runs import list_runs

    if options.action == "list":
        found = [run.summary for run in map(_refreshed, list_runs(options.root))]
        show(options, [asdict(summary) for summary in found], lambda: runs_table(found))
        return
    run = open_run(options.run)
    if options.action == "watch":
        watch(run)
        show(options, asdict(run.summary), lambda: runs_table([run.summary]))
        return
    getattr(run, options.action)()
    show(options, {"run": options.run, "asked": options.action}, lambda: f"{options.run}: {options.action} asked for")


def watch(run: "Run") -> None:
    """Show the run's events until it has ended.

    Raises:
        RunError: it has failed; the message is the run's.
    """
    from taskit.jobs.remote import RemoteRun
    from taskit.training.run_folder import LIVE

    seen, live = 0, True
    with progress_bar() as show_event:
        while live:
            if isinstance(run, RemoteRun):
                run.refresh()
            state = run.state  # read before the events, so that a final state has all of them
            live = state.name in LIVE
            for event in run.events(seen):
                show_event(event)
                seen += 1
            if live:
                time.sleep(HUB_POLL_SECONDS if isinstance(run, RemoteRun) else POLL_SECONDS)
    if state.name == "failed":
        raise RunError(state.message)


def _refreshed(run: "Run") -> "Run":
    """The run, brought up to date from the Hub if it is a Job's; unchanged where the Hub does not answer."""
    from taskit.jobs.job import FILE
    from taskit.jobs.remote import RemoteRun

    if not (run.path / FILE).exists():
        return run
    try:
        remote = RemoteRun(run.path)
        remote.refresh()
    except (HubError, RunError) as error:
        print(f"{run.path}: {error}", file=sys.stderr)
        return run
    return remote


def add_runs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--root", default=".", metavar="DIR", help="the folder that holds the runs (default: here)")
    sub.set_defaults(action="list")
    actions = sub.add_subparsers(metavar="|".join(ACTIONS))
    for action, what in ACTIONS.items():
        one = actions.add_parser(action, help=what)
        one.set_defaults(action=action)
        one.add_argument("run", metavar="RUN", help="a run folder")
        one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
