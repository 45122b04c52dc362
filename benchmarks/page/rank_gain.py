"""The forms of h(r): benchmarks/rank_gain.py."""

from benchmarks.page.markdown import accuracy, points, table
from benchmarks.page.section import Found, Section

DEFAULT = "sqrt_ln1p"
PAPER = {"one": 80.3, "linear": 83.0, "ln": 85.2, "sqrt": 85.8, "sqrt_ln": 86.0}  # Table 2, mean of six tasks


def section(found: Found) -> Section:
    rows = {row["form"]: row["after"] for row in found["table"]}
    pairs = len({(row["task"], row["seed"]) for row in found["rows"]})
    better = [form for form, after in rows.items() if after["to_default"] > 0 and not after["drowned"]]
    told = f"beats the default {DEFAULT} beyond the noise over {pairs} pairs of task and seed."
    verdict = f"{', '.join(better) or 'No other form'} {told}"
    lines = [
        [form, accuracy(after["mean"]), points(after["to_default"]),
         "" if after["noise"] is None else f"{100 * after['noise']:.1f}", str(PAPER.get(form, ""))]
        for form, after in rows.items()
    ]  # fmt: skip
    head = ("h(r)", "accuracy", "to the default, points", "noise", "paper, Table 2")
    setting = f"{found['backbone']} at a budget of {found['budget']}, {found['setting']['rows']} rows."
    return Section(verdict, not better, (setting, table(head, lines)))
