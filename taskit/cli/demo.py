"""The whole road in one command: the CLI's own verbs on the bundled backbone, zoo and handwritten digits."""

import shutil
import sys
from pathlib import Path

from taskit.cli.main import main
from taskit.data import write_digits

FOLDER = Path("demo-run")
BACKBONE = "vit-mini-tiny32"


def demo() -> int:
    """Run each verb in turn, its command shown first; stops at the first one that fails."""
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
        status = main(line.split())
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(demo())
