"""The methods side by side: benchmarks/methods.py."""

from typing import Any

from benchmarks.page.markdown import accuracy, kib, mib, seconds, table
from benchmarks.page.section import Found, Section


def section(found: Found) -> Section:
    families = {name: part for name, part in found.items() if isinstance(part, dict) and "verdicts" in part}
    best = {
        (name, regime): max(
            (one for one in part["means"] if one["regime"] == regime), key=lambda one: one["accuracy"]
        )
        for name, part in families.items()
        for regime in dict.fromkeys(one["regime"] for one in part["means"])
    }
    own = sum("taskit" in one["method"] for one in best.values())
    told = ", ".join(f"{name} at the {regime}: {one['method']}" for (name, regime), one in best.items())
    tasks = ", ".join(f"{name}: {', '.join(part['tasks'])}" for name, part in families.items())
    verdict = f"TaskIT, or a combination with it, is the best in {own} of {len(best)} comparisons on {tasks} ({told}"
    verdict += f"; not run: {', '.join(found['left_out'])})." if found["left_out"] else ")."
    body = []
    for name, part in families.items():
        body.append(_told(found, part))
        for regime in dict.fromkeys(one["regime"] for one in part["means"]):
            body += [f"### {name}, {regime}", _means([one for one in part["means"] if one["regime"] == regime])]
        body.append("\n".join(f"- {line}" for line in part["verdicts"]))
        refused = [row for row in part["rows"] if "refused" in row]
        if refused:
            body.append("\n".join(f"- refused, {row['task']}, {row['method']}: {row['refused']}" for row in refused))
    return Section(verdict, own == len(best), tuple(body), verdict)


def _told(found: Found, part: dict[str, Any]) -> str:
    return (
        f"{', '.join(part['tasks'])}: {part['train_rows']} rows to learn from, {part['test_rows']} to test on.  The "
        f"peak is that of a {found['budget']} budget, the parameters those of uniform LoRA of rank {found['rank']}.  "
        f"× is the learning rate, as a multiple of the usual one: of 1 and {found['faster']} what the validation "
        "rows of the first task and seed chose.  Where a method has as many parameters as the head alone, not one "
        "LoRA of its kind fits the budget.  DoRA, AdaLoRA, BitFit and full fine-tuning are bounded by neither."
    )


def _means(means: list[dict[str, Any]]) -> str:
    rows = [
        [
            one["method"], accuracy(one["accuracy"]), accuracy(one["spread"]), str(one["faster"]),
            f"{one['trainable_parameters']:,.0f}",
            kib(one["adapter_bytes"]), mib(one["predicted_peak_bytes"]), mib(one["measured_peak_bytes"]),
            seconds(one["train_seconds"]),
        ]
        for one in sorted(means, key=lambda one: -one["accuracy"])
    ]  # fmt: skip
    head = ("method", "accuracy", "±", "×", "parameters", "adapter", "predicted peak", "measured peak", "training")
    return table(head, rows)
