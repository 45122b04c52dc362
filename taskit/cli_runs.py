"""The verb ``taskit runs``: list, stop, resume, delete."""

import argparse
from dataclasses import asdict


def runs(options: argparse.Namespace) -> None:
    from taskit.cli import show
    from taskit.display import runs_table
    from taskit.training.runs import Run, list_runs

    if options.action == "list":
        found = [run.summary for run in list_runs(options.root)]
        show(options, [asdict(summary) for summary in found], lambda: runs_table(found))
        return
    run = Run(options.run)
    getattr(run, options.action)()
    show(options, {"run": options.run, "asked": options.action}, lambda: f"{options.run}: {options.action} asked for")


def add_runs(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--root", default=".", metavar="DIR", help="the folder that holds the runs (default: here)")
    sub.set_defaults(action="list")
    actions = sub.add_subparsers(metavar="stop|resume|delete")
    for action in ("stop", "resume", "delete"):
        one = actions.add_parser(action, help=f"{action} one run")
        one.set_defaults(action=action)
        one.add_argument("run", metavar="RUN", help="a run folder")
        one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
