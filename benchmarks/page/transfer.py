"""Predicted and true similarity and importance: benchmarks/transfer.py."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.page.markdown import points, table
from benchmarks.page.section import Found, Section

SIMILARITY = 0.86  # C.9: Pearson of predicted and true similarity
IMPORTANCE = (0.68, 0.89)  # C.6: Spearman of predicted and actual importance, least and most of five tasks
TRANSFER = (0.81, 0.86)  # C.1: R2 of similarity and the gain by a single task
LENT = "gains x trial"
KNOWN = {  # whose gains, by family
    "text": (
        "  Learned tasks here are trec_question and cr_customer_reviews, too, each where it is not new; the bundled "
        "zoo has neither, but the gains of mr_sentiment and snips_intent7."
    ),
    "image": "  Gains are known of sign_digits alone, as in the bundled zoo.",
}
OTHERS = (
    "ratio x trial",
    "numerator x trial",
    "l2 x trial",
    "own data x trial",
    "update x all alike",
    LENT,
    "blend of updates",
    "trial",
    "removed in the trial",
    "update of the trial",
    "taylor of the trial",
    "taylor of the trained",
    "spt soft",
    "depth",
    "size",
)
OLDER = (
    "Importances on ViT-tiny were measured with an earlier trial, of 32 steps of sixteen rows, and its `taylor`; all "
    "else with today's.  What an importance is worth in accuracy stands under [accuracy](#accuracy)."
)
INSERTED = ("insertion accuracy", "insertion loss")  # what a module trained alone gains; the paper's truth first
SEEN, UNSEEN = "similarity", "similarity_unseen"
OURS, THEIRS = ("trial", "blend"), ("raw fold", "ratio x raw fold (paper)")


def section(found: Found) -> Section:
    families = {name: part for name, part in found.items() if isinstance(part, dict) and "similarity" in part}
    similar = {f"{name}, {_pairs(part)} pairs": _pearson(part, OURS[0]) for name, part in families.items()}
    inserted = {name: p for name, p in families.items() if INSERTED[0] in p["importance_means"].get(OURS[1], {})}
    important, reliable = (
        {name: p["importance_means"][OURS[1]][truth] for name, p in inserted.items()} for truth in INSERTED
    )
    holds = all(v >= SIMILARITY for v in similar.values()) and all(v >= IMPORTANCE[0] for v in important.values())
    verdict = f"Predicted and true similarity correlate with r = {_each(similar)} (paper {SIMILARITY})"
    unseen = {name: _pearson(part, OURS[0], UNSEEN) for name, part in families.items() if part.get(UNSEEN)}
    if unseen:
        verdict += f", with learned tasks taken as new {_each(unseen)}"
    if important:
        halves = [{name: statistics.fmean(_halves(p, truth)) for name, p in inserted.items()} for truth in INSERTED]
        verdict += (
            f"; predicted importance and what single modules gain have rho = {_each(important)} in accuracy "
            f"(paper {IMPORTANCE[0]} to {IMPORTANCE[1]}), of which halves of the test rows agree to "
            f"{_each(halves[0])}, and {_each(reliable)} in loss, where halves agree to {_each(halves[1])}"
        )
    verdict += "."
    body = [OLDER]
    for name, part in families.items():
        body += [f"### {name}", _similarity(part), _importance(name, part)]
        if by_task := _by_task(part["importance"]):
            body.append(by_task)
        if part.get("alone"):
            body.append(_alone(part["alone"]))
    return Section(verdict, holds, tuple(body), verdict)


def _each(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.2f} ({name})" for name, value in values.items())


def _pairs(part: Mapping[str, Any]) -> int:
    return part["similarity"][0]["pairs"]


def _pearson(part: Mapping[str, Any], kind: str, rows: str = SEEN) -> float:
    return next(row["pearson"] for row in part[rows] if row["kind"] == kind)


def _similarity(part: Mapping[str, Any]) -> str:
    tables = [part[name] for name in (SEEN, UNSEEN) if part.get(name)]
    columns = [{row["kind"]: row for row in rows} for rows in tables]
    rows = [
        [kind, *(text for column in columns for text in _agreement(column.get(kind)))]
        for kind in (OURS[0], "trial even", "trial alone", "trial beyond", THEIRS[0], "ceiling")
        if kind in columns[0]
    ]
    head = ("similarity", "pairs", "Pearson r", "within a task", "unseen pairs", "Pearson r", "within a task")
    told = (
        f"`{OURS[0]}` is TaskIT's; in `trial even` trial and drift have as much say whatever the features explain, "
        "in `trial alone` the drift has none, `trial beyond` leaves out what all learned tasks share, "
        f"`{THEIRS[0]}` is the paper's against its own truth, `ceiling` that of another training of the same task.  "
        "Unseen are the learned tasks, each as if it were new to the others: nothing was chosen on them but that "
        "what the features leave unexplained counts half-way to one half."
    )
    return f"{told}\n\n{table(head[: 1 + 3 * len(columns)], rows)}"


def _agreement(row: Mapping[str, Any] | None) -> tuple[str, str, str]:
    return (str(row["pairs"]), f"{row['pearson']:.2f}", f"{row['within']:.2f}") if row else ("", "", "")


def _importance(name: str, part: Mapping[str, Any]) -> str:
    means = part["importance_means"]
    truths = list(means[OURS[1]])
    ways = [way for way in (OURS[1], THEIRS[1], *OTHERS) if way in means]
    rows = [[way, *(f"{means[way][truth]:.2f}" for truth in truths)] for way in ways]
    learning = [row for row in part["importance"] if _learns(row)]
    measured = {truth: [row["seeds"] for row in learning if row["truth"] == truth] for truth in truths}
    rows.append(["tasks, and trainings of each", *(f"{len(measured[t])}, {_range(measured[t])}" for t in truths)])
    halves = (f"{statistics.fmean(_halves(part, truth)):.2f}" for truth in truths)
    rows.append(["one half of the test rows for the other", *halves])
    again = {truth: [row["between_seeds"] for row in learning if row["truth"] == truth] for truth in truths}
    known = {truth: [value for value in again[truth] if value is not None] for truth in truths}
    if any(known.values()):
        row = (f"{statistics.fmean(known[t]):.2f}" if known[t] else "" for t in truths)
        rows.append(["one training for another", *row])
    told = (
        f"Spearman rho with what training shows; `{OURS[1]}` is TaskIT's: `trial`, and what single modules gained in "
        f"learned tasks (`{LENT}`) or, in `blend of updates` and where no gains are known, the norms of their "
        "updates.  `own data` are the learned tasks' ratios on their own data.  `update x all alike` transfers "
        "without looking at the new task, `trial` looks at nothing else, and `taylor of the trained` knows the whole "
        f"training.  Where halves, or two trainings, disagree, nobody can agree.{_idle(part['importance'])}"
    )
    return f"{told}{KNOWN.get(name, '')}\n\n{table(('importance', *truths), rows)}"


def _learns(row: Mapping[str, Any]) -> bool:
    """Whether LoRA everywhere gains more over the head than two standard errors; nobody knows it of older rows."""
    return row.get("learns", True)


def _halves(part: Mapping[str, Any], truth: str) -> list[float]:
    """What one half of the test rows says of the other, by task that learns."""
    return [row["split_half"] for row in part["importance"] if row["truth"] == truth and _learns(row)]


def _idle(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tasks that means leave out."""
    idle = {
        row["task"]: f"{points(row['learned'])} ± {100 * row['learned_error']:.1f}"
        for row in rows
        if not _learns(row)
    }
    names = ", ".join(f"{task} ({gain} points)" for task, gain in idle.items())
    why = "  Means leave out a task on which LoRA everywhere learns nothing, so that no module is important there"
    return f"{why}: {names}." if idle else ""


def _by_task(rows: Sequence[Mapping[str, Any]]) -> str:
    """`blend` by task against single insertions, beside what the best module gains at all."""
    kinds: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(row["task"], {})[row["truth"]] = row
    cells = []
    for task, by_truth in kinds.items():
        if all(truth in by_truth for truth in INSERTED):
            found = [by_truth[truth] for truth in INSERTED]
            rhos = [(row["rho"][OURS[1]], row["rho"][THEIRS[1]], row["split_half"]) for row in found]
            most = (points(found[0]["most"]), f"{found[1]['most']:+.2f}")
            cells.append([task, *(f"{value:.2f}" for each in rhos for value in each), *most])
    head = ("task", *(f"{part}{kind}" for kind in ("accuracy", "loss") for part in ("", "paper's, ", "halves, ")))
    told = (
        f"`{OURS[1]}` and the paper's measure by task, against what single modules gain in accuracy and in loss; "
        "beside them what one half of the test rows says of the other, and what the best module gains (points, "
        "cross-entropy)."
    )
    return f"{told}\n\n{table((*head, 'most', 'most'), cells)}" if cells else ""


def _range(counts: Sequence[int]) -> str:
    return "–".join(str(count) for count in sorted({min(counts), max(counts)}))


def _alone(rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = ("predicted", "true", "raw")
    cells = []
    for row in rows:
        cell = [row["task"], str(row["seeds"])]
        for gain, unit in (("accuracy", points), ("loss", "{:+.3f}".format)):
            cell += [f"{row.get(f'r_{gain}_{kind}', 0.0):.2f}" for kind in kinds]
            cell.append(f"{unit(row[f'least_{gain}'])} to {unit(row[f'most_{gain}'])}")
        cells.append([*cell, f"{100 * row['standard_error']:.1f}"])
    head = ("new task", "trainings", *kinds, "accuracy", *kinds, "loss", "one standard error")
    told = (
        "Pearson r of a learned task's similarity, predicted, true or raw, and what a plan by the norms of its "
        "updates alone gains over the head at 40 %, in accuracy (points) and in loss (paper, C.1: R² "
        f"{TRANSFER[0]} to {TRANSFER[1]}).  Gains in accuracy that lie within one standard error of each other say "
        "nothing about similarity."
    )
    return f"{told}\n\n{table(head, cells)}"
