"""The methods side by side: benchmarks/methods.py."""

import statistics
from typing import Any

from benchmarks.page.markdown import accuracy, kib, mib, seconds, table
from benchmarks.page.section import Found, Section


def section(found: Found) -> Section:
    families = {name: part for name, part in found.items() if isinstance(part, dict) and "verdicts" in part}
    best = {
        (name, regime): max(
            (one for one in part["means"] if one["regime"] == regime and one["predicted_peak_bytes"]),
            key=lambda one: one["accuracy"],
        )  # what has no predicted peak is a reference, which nothing bounds
        for name, part in families.items()
        for regime in dict.fromkeys(one["regime"] for one in part["means"])
    }
    ours = {key: _best_of_ours(families[key[0]]["means"], key[1]) for key in best}
    good = {key: _within(best[key], ours[key]) for key in best}
    told = ", ".join(
        f"{name} at the {regime}: {one['method']}"
        + ("" if one is ours[name, regime] else f", ours {ours[name, regime]['method']}")
        for (name, regime), one in best.items()
    )
    tasks = ", ".join(f"{name}: {', '.join(part['tasks'])}" for name, part in families.items())
    left_out = sorted({method for part in families.values() for method in part["left_out"]})
    verdict = (
        f"TaskIT, or a combination with it, is the best or within the seeds' spread of it in {sum(good.values())} of "
        f"{len(best)} comparisons on {tasks} ({told}"
    )
    verdict += f"; not run: {', '.join(left_out)})." if left_out else ")."
    body = ["Where a method plans by TaskIT's importance, it is that of an earlier trial, of fewer steps."]
    for name, part in families.items():
        body.append(_told(found, part))
        for regime in dict.fromkeys(one["regime"] for one in part["means"]):
            body += [f"### {name}, {regime}", _means([one for one in part["means"] if one["regime"] == regime])]
        body.append("\n".join(f"- {line}" for line in part["verdicts"]))
        refused = [row for row in part["rows"] if "refused" in row]
        if refused:
            body.append("\n".join(f"- refused, {row['task']}, {row['method']}: {row['refused']}" for row in refused))
    return Section(verdict, all(good.values()), tuple(body), verdict)


def _best_of_ours(means: list[dict[str, Any]], regime: str) -> dict[str, Any]:
    ours = (one for one in means if one["regime"] == regime and "taskit" in one["method"])
    return max(ours, key=lambda one: one["accuracy"])


def _within(best: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether ours is the best, or no further behind, seed by seed, than the seeds spread."""
    behind = [best["by_seed"][seed] - ours["by_seed"][seed] for seed in best["by_seed"] if seed in ours["by_seed"]]
    return best is ours or (len(behind) > 1 and statistics.fmean(behind) <= statistics.stdev(behind))


def _told(found: Found, part: dict[str, Any]) -> str:
    return (
        f"{', '.join(part['tasks'])}: {part['train_rows']} rows to learn from, {part['test_rows']} to test on.  The "
        f"peak is that of a {found['budget']} budget, the parameters those of uniform LoRA of rank {found['rank']}.  "
        f"× is the learning rate, as a multiple of the usual one: of 1 and {found['faster']} what the validation "
        "rows of the first task and seed chose.  Where a method has as many parameters as the linear head only, not "
        "one LoRA of its kind fits the budget.  DoRA, AdaLoRA, BitFit and full fine-tuning are bounded by neither."
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
