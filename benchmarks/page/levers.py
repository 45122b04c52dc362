"""The time of the exact levers, and of plans: benchmarks/levers.py."""

from benchmarks.page.markdown import seconds, table
from benchmarks.page.section import Found, Section


def section(found: Found) -> Section:
    plans = [(row["task"], plan) for row in found["epochs"] for plan in row["plans"] if "holds" in plan]
    slowest = max(plan["ratio"] for _, plan in plans)
    missed = [f"{task} at {plan['way'].replace('%', ' %')}" for task, plan in plans if not plan["holds"]]
    verdict = (
        f"Plans at 60 % and 20 % of the scale take at most {slowest:.2f} times as long as LoRA r = 8 everywhere with "
        "the whole batch at once."
    )
    if missed:
        verdict += f" The bar of 1.05 is missed by {', '.join(missed)}."
    return Section(verdict, not missed, (_plans(found["epochs"]), *map(_levers, found["levers"])), verdict)


def _plans(rows: list) -> str:
    lines = [
        [
            f"{row['task']}, {plan['way'].replace('%', ' %')}", str(plan["micro_batch"]), str(plan["recomputed"]),
            f"{plan['inserted']} of {plan['locations']}", ", ".join(map(str, plan["ranks"])),
            seconds(plan["seconds"] / row["steps"]), f"{plan['ratio']:.3f}",
        ]
        for row in rows
        for plan in row["plans"]
    ]  # fmt: skip
    head = ("plan", "rows at once", "blocks recomputed", "LoRA at", "ranks", "a step", "ratio")
    return table(head, lines)


def _levers(row: dict) -> str:
    lines = [
        [way["way"], seconds(way["seconds"]), f"{way['ratio']:.2f}", _told(way["foretold"])] for way in row["ways"]
    ]
    told = f"One optimizer step of MiniLM over 32 texts of up to {row['tokens']} tokens, LoRA r = 8 everywhere."
    return f"{told}\n\n{table(('way', 'a step', 'ratio', 'by step_time.py'), lines)}"


def _told(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
