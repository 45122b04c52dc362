"""Adapters in float32 and bfloat16: benchmarks/adapter_dtype.py."""

from benchmarks.page.markdown import accuracy, mib, points, table
from benchmarks.page.section import Found, Section

NOISE = 2.0  # standard errors of a difference between two accuracies on the same number of rows


def section(found: Found) -> Section:
    means = {row["way"]: row for row in found["means"]}
    half, mixed = means["bfloat16"], means["mixed"]
    gap, saved = half["test"] - mixed["test"], 1 - half["step_bytes"] / mixed["step_bytes"]
    asked = found["setting"]["train_rows"] * len(found["seeds"])
    noise = NOISE * (2 * mixed["test"] * (1 - mixed["test"]) / asked) ** 0.5
    verdict = (
        f"Over a bfloat16 backbone bfloat16 adapters reach {points(gap)} points of float32 ones (noise "
        f"{100 * noise:.1f}) with {100 * saved:.0f} % less memory beside the weights."
    )
    lines = [[way, accuracy(row["test"]), mib(row["step_bytes"])] for way, row in means.items()]
    body = (table(("way", "accuracy", "bytes of a step"), lines),)
    return Section(verdict, gap >= -noise and saved > 0, body)
