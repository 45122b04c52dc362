"""What the verbs share: the flags DATA, --column, --seed, --backbone and --zoo, and how an answer is printed."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from taskit.errors import TaskITError


def add_zoo(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--backbone", required=True, metavar="ID", help="a bundled name, a folder or a Hub id")
    sub.add_argument(
        "--zoo",
        metavar="ZOO",
        help="a folder of PEFT adapters, or hub, hub:AUTHOR, hub:OWNER/NAME,… or hub:collections/OWNER/SLUG "
        "(default: the bundled ones)",
    )


def add_data(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "data",
        metavar="DATA",
        help="a table (csv, tsv, json, jsonl, parquet), a folder or zip of images, or hub:OWNER/NAME",
    )
    sub.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="ROLE=NAME",
        help="name a column yourself: text, text_pair, label, image, prompt, completion or messages; may be repeated",
    )
    sub.add_argument("--seed", type=int, default=0, help="seed of every random choice (default %(default)s)")


def columns_of(options: argparse.Namespace) -> dict[str, str] | None:
    """Role to column name as --column gives them, None without any; raises TaskITError for what is not ROLE=NAME."""
    pairs = [item.partition("=") for item in options.column]
    for role, equals, name in pairs:
        if not (role and equals and name):
            raise TaskITError(f"--column {role}{equals}{name} is not understood; write for example label=intent.")
    return {role: name for role, _, name in pairs} or None


def show(options: argparse.Namespace, value: Any, table: Callable[[], Any]) -> None:
    """Print ``value`` as JSON, or the table for people."""
    if options.json:
        json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return
    from rich.console import Console

    Console(highlight=False).print(table())
