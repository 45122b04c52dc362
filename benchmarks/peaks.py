"""Claim: the predicted peak is never more than 3 % below the measured one, which stays within the budget.

    python -m benchmarks.peaks [--data FOLDER] [--seeds 0] [--quick] [--out FILE]

Plans and trains the demo's digits on the bundled backbone and, where FOLDER holds trec_question_train.csv, its
first rows on MiniLM, at five budgets each.
"""

import tempfile
from pathlib import Path

import pandas

from benchmarks.common import Results, options
from taskit.data import write_digits
from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.training.trainer import train

TEXT = "trec_question"
BUDGETS = ("20%", "40%", "60%", "80%", "100%")
ROWS = 800  # of the text task; the peak depends on the longest batch, not on how many there are
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def one(source: Path, scratch: Path, budget: str, seed: int) -> dict:
    backbone = MINILM if source.suffix == ".csv" else "vit-mini-tiny32"
    plan = make_plan(source, backbone, budget, recipe=Recipe(epochs=1, batch_size=32), seed=seed)
    result = train(plan, scratch / f"{source.stem}-{budget.rstrip('%')}-{seed}")
    row = {
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
        f"{source.stem:22} {budget:>5}  predicted {row['predicted']:>12,}  measured {row['measured']:>12,}  "
        f"error {row['error']:+.2%}  of budget {row['used']:.2%}  {'holds' if row['holds'] else 'FAILS'}",
        flush=True,
    )
    return row


def sources(data: Path | None, scratch: Path) -> dict[str, Path]:
    """The digits, and the first rows of the text task where they are."""
    found = {"digits": write_digits(scratch / "digits")}
    text = data / f"{TEXT}_train.csv" if data else None
    if text and text.exists():
        found[text.stem] = scratch / text.name
        pandas.read_csv(text, nrows=ROWS, keep_default_na=False).to_csv(found[text.stem], index=False)
    return found


def main() -> None:
    quick, data = "one budget instead of five", f"{TEXT}_train.csv, for the rows on text"
    parser = options("peaks", __doc__, quick=quick, data=data, seeds=(0,))
    chosen = parser.parse_args()
    budgets = BUDGETS[2:3] if chosen.quick else BUDGETS
    results = Results(parser, chosen)
    with tempfile.TemporaryDirectory() as folder:
        found = sources(chosen.data, Path(folder))
        keys = [{"task": task, "budget": b, "seed": seed} for task in found for b in budgets for seed in chosen.seeds]
        results.rows("rows", keys, lambda task, budget, seed: one(found[task], Path(folder), budget, seed))
    results.end()


if __name__ == "__main__":
    main()
