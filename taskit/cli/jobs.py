"""The verb ``taskit train --on hf-jobs:FLAVOR``: shows the price, asks for consent, and submits the Job."""

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from taskit.cli.common import show
from taskit.errors import TaskITError
from taskit.terminal import status

if TYPE_CHECKING:
    from taskit.jobs.quote import Quote
    from taskit.planning.plan import Plan

SERVICE = "hf-jobs"


def train_elsewhere(options: argparse.Namespace, plan: "Plan") -> None:
    """Train ``plan`` in a Job; raises TaskITError where the user does not agree to the price, or the Hub refuses."""
    from taskit.jobs.job import authenticated_api
    from taskit.jobs.quote import make_quote
    from taskit.jobs.submitting import submit

    service, _, flavor = options.on.partition(":")
    if service != SERVICE or not flavor:
        raise TaskITError(f"--on {options.on} is not understood; write for example {SERVICE}:t4-small.")
    if options.resume or options.track:
        raise TaskITError("--resume and --track are for runs on this machine; resume a Job with taskit runs resume.")
    api = authenticated_api()
    with status() as on_progress:
        on_progress("looking up the machine and its price")
        quote = make_quote(plan, flavor, api, tighten=options.tighten)
    print(price_line(quote), file=sys.stderr)
    if not options.yes:
        require_consent(quote)
    with status() as on_progress:
        run = submit(plan, options.out, quote, api, tighten=options.tighten, on_progress=on_progress)
    submitted = {
        "run": str(run.path),
        "job": asdict(run.job),
        "dollars": quote.dollars,
        "most_dollars": quote.most_dollars,
    }
    show(options, submitted, lambda: run.job.url)
    print(f"Follow it with: taskit runs watch {options.out}", file=sys.stderr)


def price_line(quote: "Quote") -> str:
    return (
        f"{quote.machine.flavor} ({quote.machine.title}): about {quote.seconds / 60:.0f} minutes and "
        f"${quote.dollars:.2f}; ended after {quote.timeout_seconds / 60:.0f} minutes, so at most "
        f"${quote.most_dollars:.2f}"
    )


def require_consent(quote: "Quote") -> None:
    """Raises TaskITError unless a person at the terminal agrees."""
    from rich.console import Console
    from rich.prompt import Confirm

    if not sys.stdin.isatty():
        raise TaskITError(f"Nobody is there to agree to at most ${quote.most_dollars:.2f}; say --yes to agree.")
    if not Confirm.ask("Start it?", console=Console(stderr=True), default=False):
        raise TaskITError("Nothing was started; run the same command again when you agree to the price.")
