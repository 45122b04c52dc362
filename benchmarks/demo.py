"""Claim: one command goes the whole road without network, and its training stays within the budget.

    python -m benchmarks.demo [--out FILE]

Runs `taskit demo` (what `make demo` runs) in an empty folder, and keeps the ranks, the bytes and the
accuracy that it shows.  There is nothing to make shorter and no seed to choose: a demo is what it is.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import Row, facts
from taskit.files import write_json
from taskit.planning.plan import Plan

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo.json"), metavar="FILE")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        words = [sys.executable, "-m", "taskit", "demo"]
        subprocess.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        found = shown(Path(folder, "demo-run")) | {"seconds": time.perf_counter() - began}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out, facts(parser, chosen) | found)
    sys.exit(0 if found["measured_peak_bytes"] <= found["budget_bytes"] else 1)


def shown(folder: Path) -> Row:
    """Ranks by block and role, predicted and measured bytes, and accuracy, of the demo in ``folder``."""
    plan, result = Plan.load(folder / "plan.json"), json.loads((folder / "run" / "result.json").read_text())
    ranks: dict[int, Row] = {}
    for place in plan.locations:
        ranks.setdefault(place.block, {"block": place.block})[place.role] = place.rank
    return {
        "seeds": [plan.seed],
        "ranks": [ranks[block] for block in sorted(ranks)],
        "peak_bytes": plan.memory.peak_bytes,
        "budget_bytes": plan.budget_bytes,
        "full_lora_bytes": plan.memory.full_lora_bytes,
        **{name: result[name] for name in ("before", "after", "measured_peak_bytes")},
    }


if __name__ == "__main__":
    main()
