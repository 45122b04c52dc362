"""Plans trained at five budgets: benchmarks/peaks.py."""

from benchmarks.page.markdown import accuracy, mib, percent, table
from benchmarks.page.section import Found, Section


def section(found: Found) -> Section:
    rows = found["rows"]
    lowest, most = min(row["error"] for row in rows), max(row["used"] for row in rows)
    verdict = (
        f"Over {len(rows)} trained plans the predicted peak is at most {percent(max(-lowest, 0))} below the measured "
        f"one, which takes at most {100 * most:.2f} % of the budget."
    )
    lines = [
        [
            row["task"], row["budget"], mib(row["budget_bytes"]), mib(row["predicted"]), mib(row["measured"]),
            percent(row["error"]), accuracy(row["before"]), accuracy(row["after"]),
        ]
        for row in rows
    ]  # fmt: skip
    head = ("task", "share", "budget", "predicted", "measured", "error", "linear head only", "accuracy")
    return Section(verdict, all(row["holds"] for row in rows), (table(head, lines),), verdict)
