"""Claim: the predicted peak is never more than 3 % below the measured one, which stays within the budget.

    python benchmarks/peaks.py --data FOLDER [--quick]

Plans and trains the demo's digits on the bundled backbone and, where FOLDER holds trec_question_train.csv, its
first rows on MiniLM, at five budgets each.  Prints a table and writes peaks.json.
"""

import argparse
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pandas

from taskit.data import write_digits
from taskit.planning import make_plan
from taskit.training.recipe import Recipe
from taskit.training.trainer import train

BUDGETS = ("20%", "40%", "60%", "80%", "100%")
ROWS = 800  # of the text task; the peak depends on the longest batch, not on how many there are
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def rows(source: Path, backbone: str, scratch: Path, budgets: tuple[str, ...]) -> list[dict]:
    found = []
    for budget in budgets:
        plan = make_plan(source, backbone, budget, recipe=Recipe(epochs=1, batch_size=32))
        result = train(plan, scratch / f"{source.stem}-{budget.rstrip('%')}")
        row = {
            "task": source.stem,
            "budget": budget,
            "budget_bytes": plan.budget_bytes,
            "predicted": result.predicted_peak_bytes,
            "measured": result.measured_peak_bytes,
            "error": result.predicted_peak_bytes / result.measured_peak_bytes - 1,
            "used": result.measured_peak_bytes / plan.budget_bytes,
            "before": result.before,
            "after": result.after,
        }
        row["holds"] = row["error"] >= -0.03 and row["used"] <= 1
        print(
            f"{row['task']:22} {budget:>5}  predicted {row['predicted']:>12,}  measured {row['measured']:>12,}  "
            f"error {row['error']:+.2%}  of budget {row['used']:.2%}  {'holds' if row['holds'] else 'FAILS'}",
            flush=True,
        )
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with trec_question_train.csv")
    parser.add_argument("--quick", action="store_true", help="two budgets instead of five")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peaks.json")
    options = parser.parse_args()
    budgets = BUDGETS[1::2] if options.quick else BUDGETS
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        table = rows(write_digits(scratch / "digits"), "vit-mini-tiny32", scratch, budgets)
        text = options.data / "trec_question_train.csv" if options.data else None
        if text and text.exists():
            first = scratch / text.name
            pandas.read_csv(text, nrows=ROWS, keep_default_na=False).to_csv(first, index=False)
            table += rows(first, MINILM, scratch, budgets)
    packages = {name: version(name) for name in ("taskit", "torch", "transformers", "peft", "accelerate")}
    facts = {"command": "python benchmarks/peaks.py", "versions": packages, "machine": platform.machine()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**facts, "rows": table}, indent=2) + "\n")
    sys.exit(0 if all(row["holds"] for row in table) else 1)


if __name__ == "__main__":
    main()
