"""The verb ``taskit demo``: the CLI's own verbs in turn, on the bundled backbone, zoo and handwritten digits."""

import argparse
import shutil
from functools import partial
from pathlib import Path
from typing import Any

FOLDER = Path("demo-run")  # in the folder where it is run
BACKBONE = "vit-mini-tiny32"


def demo(parser: argparse.ArgumentParser, _: argparse.Namespace) -> None:
    """Run each verb, its command shown first; an error of one ends the demo as it would end the verb."""
    from taskit.data import write_digits

    data, plan, run = FOLDER / "digits", FOLDER / "plan.json", FOLDER / "run"
    write_digits(data)
    shutil.rmtree(run, ignore_errors=True)
    image = sorted((data / "test" / "7").glob("*.png"))[0]
    for line in (
        f"check {data}",
        f"zoo --backbone {BACKBONE}",
        f"plan {data} --backbone {BACKBONE} --budget 30% --epochs 5 --out {plan}",
        f"train {plan} --out {run}",
        f"predict {run} {image}",
    ):
        print(f"\n$ taskit {line}", flush=True)
        options = parser.parse_args(line.split())
        options.verb(options)


def add_demo(verbs: Any, parser: argparse.ArgumentParser) -> None:
    """Add the verb to the command line; it prints what other verbs print, so it has no --json of its own."""
    help_text = f"Check, plan, train and predict on bundled models and data, in the folder {FOLDER}."
    verbs.add_parser("demo", help=help_text, description=help_text).set_defaults(verb=partial(demo, parser))
