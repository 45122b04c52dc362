"""What all benchmarks share: their options, the facts of a run, and results that are kept as they come."""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from taskit.files import write_json

PACKAGES = ("taskit", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "numpy", "scipy", "gradio")
Row = dict[str, Any]


def options(
    name: str, doc: str | None, *, quick: str, data: str | None = None, required: bool = False, seeds: Sequence[int]
) -> argparse.ArgumentParser:
    """The parser of ``benchmarks/NAME.py``: --seeds, --quick, --out, and --data where ``data`` says what it holds."""
    parser = argparse.ArgumentParser(
        f"python -m benchmarks.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if data:
        parser.add_argument("--data", type=Path, metavar="FOLDER", required=required, help=f"a folder with {data}")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds), metavar="N")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, default=Path(f"{name}.json"), metavar="FILE", help="goes on from it")
    return parser


def facts(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> Row:
    """Command (folders by their kind, not by their place), seeds, machine and versions."""
    return {
        "command": shlex.join([*parser.prog.split(), *_unplaced(chosen, sys.argv[1:])]),
        "seeds": getattr(chosen, "seeds", []),
        "machine": machine(),
        "versions": dict(_versions()),
    }


def _unplaced(chosen: argparse.Namespace, words: Sequence[str]) -> Iterable[str]:
    """The words of a command without the places of this machine."""
    given = [value for value in vars(chosen).values() if isinstance(value, Path)]
    paths = {str(path): "FILE" if path.suffix else "FOLDER" for path in given}
    for word in words:
        flag, equals, value = word.rpartition("=")
        yield flag + equals + paths.get(str(Path(value)), value)


def _versions() -> Iterable[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def machine() -> str:
    """Processor, cores and GPU."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{platform.machine()}, {os.cpu_count()} cores, {gpu}"


class Results:
    """The JSON of a benchmark: what a stopped one has measured is not measured again.

    ``setting`` is what changes the meaning of a row and is not in it, such as the number of training rows.
    """

    def __init__(self, parser: argparse.ArgumentParser, chosen: argparse.Namespace, **setting: Any) -> None:
        self.path, self.name = chosen.out, parser.prog.rpartition(".")[2]
        self.found: Row = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        if self.found and self.found.get("setting") != setting:
            sys.exit(f"{self.path} holds results of another setting; give another file with --out.")
        known = facts(parser, chosen) | {"setting": setting}
        known["seeds"] = sorted({*self.found.get("seeds", ()), *known["seeds"]})
        self.found |= known

    def rows(self, part: str, keys: Iterable[Row], measure: Callable[..., Row]) -> list[Row]:
        """The row of each key in turn, {**key, **measure(**key)}; those of other keys stay in the part."""
        kept: list[Row] = self.found.setdefault(part, [])
        wanted = list(keys)
        found = []
        for number, key in enumerate(wanted, 1):
            row = next((row for row in kept if key.items() <= row.items()), None)
            if row is None:
                self.on_progress(f"{part} {number} of {len(wanted)}: {', '.join(f'{k} {v}' for k, v in key.items())}")
                row = key | measure(**key)
                kept.append(row)
                self.save()
            found.append(row)
        return found

    def part(self, part: str, measure: Callable[[], Any]) -> Any:
        """What ``measure`` gives, measured in one go."""
        if part not in self.found:
            self.on_progress(part)
            self.found[part] = measure()
            self.save()
        return self.found[part]

    def put(self, **summary: Any) -> None:
        """Keep what follows from the rows, and is computed anew each time."""
        self.found |= summary
        self.save()

    def on_progress(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.name}: {line}", flush=True)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.found)

    def end(self) -> None:
        """Leave the process: with 1 where a row says that its bar does not hold."""
        self.save()
        sys.exit(0 if all(holding(self.found)) else 1)


def holding(found: Any) -> Iterable[bool]:
    """Every `holds` in there."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name == "holds":
                yield bool(value)
            else:
                yield from holding(value)
    elif isinstance(found, list):
        for value in found:
            yield from holding(value)
