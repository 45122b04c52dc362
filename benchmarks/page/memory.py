"""Predicted and real bytes: benchmarks/memory.py."""

from benchmarks.page.markdown import counted, percent, seconds, table
from benchmarks.page.section import Found, Section
from benchmarks.page.svg import bars

PAPER = 0.94  # Pearson r of the paper's block-based predictor on Janus-Pro, supplement C.7


def section(found: Found) -> Section:
    activations, peaks, speed = (found.get(part, []) for part in ("activations", "peaks", "speed"))
    gpu = [row for row in found.get("gpu", []) if "skipped" not in row]
    rows = [*activations, *peaks, *speed, *gpu]
    if not activations or not peaks:
        return Section("Nothing is said before both parts, activations and peaks, are there.", None)
    worst = max(row["trace"]["worst_error"] for row in activations)
    lowest = min(row["lowest_error"] for row in peaks)
    failing = [row for row in rows if not row["holds"]]
    figure = (
        f"On {counted(len(activations), 'architecture')} the predicted activation bytes are off by at most "
        f"{percent(worst)}, and the predicted peak of whole steps, in {len(peaks)} pairs of "
        f"architecture and condition, is never more than {percent(max(-lowest, 0))} below the measured one, where no "
        "kernel packs its half-precision operands, as oneDNN's do with AVX-512 or AMX"
    )
    verdict = figure + (f", yet {len(failing)} of {len(rows)} rows miss their bar." if failing else ".")
    errors = {
        row["architecture"]: {name: 100 * row[key]["mean_error"] for key, name in KINDS.items() if key in row}
        for row in activations
    }
    picture = bars("Mean error of predicted activation bytes", " %", errors)
    body = (_activations(activations), _conditions(peaks), _speed(speed), _gpu(gpu))
    return Section(verdict, not failing, tuple(filter(None, body)), figure + ".", {"memory.svg": picture})


KINDS = {"trace": "TaskIT's trace", "masks": "the paper's masks", "linear": "linear index"}


def _activations(rows: list) -> str:
    def cells(row: dict) -> list[str]:
        trace, masks = row["trace"], row.get("masks")
        return [
            row["architecture"], str(row["locations"]), percent(trace["mean_error"]), percent(trace["worst_error"]),
            f"{trace['pearson']:.4f}", percent(masks["mean_error"]) if masks else "",
            f"{masks['pearson']:.4f}" if masks else "", f"{row['linear']['pearson']:.2f}",
        ]  # fmt: skip

    head = ("architecture", "locations", "mean error", "worst error", "Pearson r", "masks: mean error", "masks: r",
            "linear index: r")  # fmt: skip
    told = (
        "Activation bytes of random strategies against what separately built models save; `masks` are the paper's "
        f"(A.2, A.3), `linear index` its baseline.  The paper's predictor reaches r = {PAPER} (C.7)."
    )
    return f"{told}\n\n{table(head, map(cells, rows))}"


def _conditions(rows: list) -> str:
    by_condition: dict[str, list[dict]] = {}
    for row in rows:
        by_condition.setdefault(row["condition"], []).append(row)
    lines = [
        [
            name,
            str(len(some)),
            percent(max(row["worst_error"] for row in some)),
            percent(min(row["lowest_error"] for row in some)),
        ]
        for name, some in by_condition.items()
    ]
    head = ("condition", "architectures", "worst error", "lowest error")
    return f"Peak of whole real steps on this CPU, against the allocator's events.\n\n{table(head, lines)}"


def _speed(rows: list) -> str:
    if not rows:
        return ""
    lines = [
        [
            row["model"],
            seconds(row["wall_seconds"]),
            seconds(row["cpu_seconds"]),
            f"{row['peak_rss_bytes'] >> 20} MiB",
        ]
        for row in rows
    ]
    return f"Pricing without weights.\n\n{table(('model', 'wall', 'CPU', 'resident memory'), lines)}"


def _gpu(rows: list) -> str:
    if not rows:
        return "The part on a GPU was not measured: there was none."
    lines = [
        [row["architecture"], str(row["plans"]), str(row["out_of_memory"]), percent(row["mean_error"]),
         percent(row["mean_used"])]
        for row in rows
    ]  # fmt: skip
    head = ("architecture", "plans", "out of memory", "mean error", "budget used")
    return f"Plans trained on a GPU under a capped allocator.\n\n{table(head, lines)}"
