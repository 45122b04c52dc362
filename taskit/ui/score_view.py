"""Views of an evaluation: the confusion matrix, the most frequent mistakes, and the scores beside the metric."""

from collections.abc import Sequence

from taskit.training.results import Scores
from taskit.ui.markup import empty, panel, table, text

MOST_CLASSES = 30  # of a matrix; a larger one cannot be read
MISTAKES = 8  # listed at most
STRONGEST = 50  # per cent of the accent in a cell: one hue from light to dark, on which the ink can always be read
FURTHER = {"macro_f1": "macro F1", "perplexity": "perplexity", "exact_match": "exact match", "rouge_l": "ROUGE-L"}


def scores_view(labels: Sequence[str], before: Scores | None, after: Scores | None) -> str:
    """The panels that fit the task, as HTML; nothing for a run that kept no details."""
    if before is None or after is None:
        return ""
    mistakes = _mistakes(labels, after)
    parts = [_confusion(labels, after), mistakes, _further(before, after)]
    return "".join(f"<div>{part}</div>" for part in parts if part)


def _confusion(labels: Sequence[str], scores: Scores) -> str:
    if scores.confusion is None or len(labels) > MOST_CLASSES:
        return ""
    columns = "".join(f'<th scope="col"><span>{text(label)}</span></th>' for label in labels)
    rows = "".join(
        f'<tr><th scope="row">{text(label)}</th>{_row(labels, k, counts)}</tr>'
        for k, (label, counts) in enumerate(zip(labels, scores.confusion, strict=True))
    )
    heads = f'<tr class="names"><td></td>{columns}</tr>'
    body = f'<div class="scroll"><table class="heat confusion"><tbody>{rows}{heads}</tbody></table></div>'
    hint = "True classes down, answers of the adapter across; colour is the share of a row, stronger is more."
    return panel("What was taken for what", hint, body)


def _row(labels: Sequence[str], true: int, counts: Sequence[int]) -> str:
    whole = sum(counts) or 1
    cells = []
    for given, count in enumerate(counts):
        tip = f"{count} of {sum(counts)} rows of {labels[true]} taken for {labels[given]}"
        mix = STRONGEST * count / whole
        cells.append(f'<td style="--mix:{mix:.0f}%" title="{text(tip)}">{count or ""}</td>')
    return "".join(cells)


def _mistakes(labels: Sequence[str], scores: Scores) -> str:
    """The most frequent confusions, also for screen readers, which cannot read the colours."""
    if scores.confusion is None:
        return ""
    found = [
        (count, sum(counts), true, given)
        for true, counts in enumerate(scores.confusion)
        for given, count in enumerate(counts)
        if count and given != true
    ]
    title, hint = "Most frequent mistakes", "On the rows kept aside."
    if not found:
        return panel(title, hint, empty("None", "Every row kept aside was answered correctly."))
    rows = [
        (text(labels[true]), text(labels[given]), f"{count} of {of}")
        for count, of, true, given in sorted(found, key=lambda one: (-one[0], one[2:]))[:MISTAKES]
    ]
    return panel(title, hint, table(("true class", "taken for", "rows"), rows))


def _further(before: Scores, after: Scores) -> str:
    rows = [
        (name, f"{old:.3f}", f"{new:.3f}")
        for field, name in FURTHER.items()
        if (old := getattr(before, field)) is not None and (new := getattr(after, field)) is not None
    ]
    return panel("Other scores", "On the same rows.", table(("", "before", "after"), rows)) if rows else ""
