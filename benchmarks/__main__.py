"""Measure every claim that this machine can: all benchmarks, each into a file of its own.

    python -m benchmarks [--quick] [--data FOLDER] [--work FOLDER] [--only NAME…]

Those whose bars are seconds run alone, the others side by side, one to a core.  A stopped one goes on where it was.
What needs real data runs where --data names the folder; parts that need a GPU run where there is one.  Results lie in
WORK/results: copy those that are to be shown into benchmarks/results and run ``python -m benchmarks.evidence``.  The
short form shows that everything runs, and measures little.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Script:
    """``data``: whether it needs real data, can use them, or knows none.  ``work``: it keeps its cells in a folder.

    ``quick`` is its short form.  ``alone``: others beside it would be in its figures.
    """

    name: str
    data: str = "none"
    work: bool = False
    weights: bool = False
    quick: tuple[str, ...] = ("--quick",)
    alone: bool = False

    def command(self, chosen: argparse.Namespace) -> list[str]:
        words = [sys.executable, "-m", f"benchmarks.{self.name}"]
        words += ["--out", str(chosen.work / "results" / f"{self.name}.json")]
        if self.data != "none" and chosen.data:
            words += ["--data", str(chosen.data)]
            weights = chosen.data.parent / "weights"
            if self.weights and weights.is_dir() and not chosen.quick:
                words += ["--weights", str(weights)]
        if self.work:
            words += ["--work", str(chosen.work / self.name)]
        return words + list(self.quick if chosen.quick else ())


IMAGES = ("--quick", "--families", "image")  # the smallest backbone
SCRIPTS = (  # the short ones first
    Script("scheduler", quick=("--quick", "--milp-seconds", "5"), alone=True),
    Script("demo", quick=()),
    Script("peaks", data="can"),
    Script("memory"),
    Script("training", data="can", weights=True, alone=True),
    Script("app", alone=True),
    Script("loss", alone=True),
    Script("levers", data="needs", alone=True),
    Script("micro_batches", data="can"),
    Script("recomputing"),
    Script("context_length"),
    Script("adapter_dtype", data="needs"),
    Script("rank_gain", data="needs"),
    Script("planning", data="needs"),
    Script("accuracy", data="needs", work=True, quick=IMAGES),
    Script(
        "methods", data="needs", work=True, quick=(*IMAGES, "--seeds", "0", "--methods", "taskit", "uniform", "eva")
    ),
    Script(
        "transfer",
        data="needs",
        work=True,
        quick=(*IMAGES, "--seeds", "0", "--shares", "60", "--parts", "learn", "gather", "rates", "report"),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the short form of each")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="the datasets; weights/ beside it, if there is one"
    )
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="benchmark-runs, or benchmark-runs/quick")
    parser.add_argument("--only", nargs="+", choices=[script.name for script in SCRIPTS], metavar="NAME")
    chosen = parser.parse_args()
    chosen.work = chosen.work or Path("benchmark-runs", *["quick"] * chosen.quick)
    (chosen.work / "results").mkdir(parents=True, exist_ok=True)
    wanted = [script for script in SCRIPTS if not chosen.only or script.name in chosen.only]
    told = {script.name: measured(script, chosen) for script in wanted if script.alone}
    others = [script for script in wanted if not script.alone]
    with ThreadPoolExecutor(os.cpu_count()) as cores:
        told |= zip(
            [script.name for script in others], cores.map(lambda one: measured(one, chosen), others), strict=True
        )
    print("\n".join(f"{name:14} {word}" for name, word in told.items()))
    sys.exit(0 if all(word.startswith(("holds", "skipped")) for word in told.values()) else 1)


def measured(script: Script, chosen: argparse.Namespace) -> str:
    """One word on how the script ended, and how long it took."""
    if script.data == "needs" and not chosen.data:
        return "skipped: it needs real data, which DATA=FOLDER (--data) names"
    print(f"== {script.name}", flush=True)
    began = time.perf_counter()
    done = subprocess.run(script.command(chosen), env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    return f"{'FAILS' if done.returncode else 'holds'}, {time.perf_counter() - began:.0f} s"


if __name__ == "__main__":
    main()
