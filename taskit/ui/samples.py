"""The view of a dataset: its figures, its classes, and a few rows."""

import base64
import io
from collections.abc import Iterator
from typing import Any

from taskit.data import Dataset, Report
from taskit.ui.markup import bar, figures, notice, panel, share, table, text

EXAMPLES = 12
LONGEST = 240  # characters shown of a text
THUMBNAIL = 96  # pixels
CLASSES = 20  # drawn; the rest is counted


def data_view(data: Dataset) -> str:
    """All that is shown of a dataset before training, as HTML."""
    warnings = "".join(notice(warning, "warning") for warning in data.report.warnings)
    left = facts(data.report) + balance(data.report)
    return f'{warnings}<div class="panels"><div class="stacked">{left}</div><div>{examples(data)}</div></div>'


def facts(report: Report) -> str:
    info = report.info
    values = {"training rows": f"{info.train_rows:,}", "evaluation rows": f"{info.eval_rows:,}"}
    if info.labels:
        values["classes"] = f"{len(info.labels):,}"
    values["duplicates"] = f"{report.train_duplicates + report.eval_duplicates:,}"
    head = ("", "least", "median", "95 %", "most")
    rows = [
        (text(f"{one.field}, {one.unit}"), *(f"{n:,}" for n in (one.minimum, one.median, one.p95, one.maximum)))
        for one in report.spreads
    ]
    columns = ", ".join(f"{role} = {name}" for role, name in info.columns)
    return panel(
        info.task.capitalize().replace("-", " "), f"Columns: {columns}.", figures(values) + table(head, rows)
    )


def balance(report: Report) -> str:
    """A bar for each class."""
    if not report.classes:
        return ""
    largest = max(one.train for one in report.classes) or 1
    bars = "".join(
        bar(text(one.label), f'<i style="left:0;width:{share(one.train, largest)}"></i>', f"{one.train:,}")
        for one in report.classes[:CLASSES]
    )
    more = len(report.classes) - CLASSES
    rest = f'<p class="hint">and {more} more</p>' if more > 0 else ""
    return panel("Classes", "Training rows of each.", f'<div class="bars">{bars}</div>{rest}')


def examples(data: Dataset) -> str:
    """A few training rows, of as many classes as fit."""
    rows = [data.train[index] for index in _spread_over_classes(data)]
    labels = data.info.labels
    if "image" in data.info.modality:
        items = "".join(
            f'<figure><img src="{thumbnail(row["image"])}" alt="{text(words)}" loading="lazy">'
            f"<figcaption>{text(words)}</figcaption></figure>"
            for row in rows
            for words in [labels[row["label"]] if labels else _shorten(row)]
        )
        return panel("Examples", "As they are in the training rows.", f'<div class="samples">{items}</div>')
    items = "".join(f"<li>{_chip(row, labels)}<span>{text(_shorten(row))}</span></li>" for row in rows)
    return panel("Examples", "As they are in the training rows.", f'<ul class="quotes">{items}</ul>')


def _spread_over_classes(data: Dataset) -> list[int]:
    if not data.info.labels:
        return list(range(min(EXAMPLES, len(data.train))))
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(data.train["label"]):
        by_class.setdefault(label, []).append(index)

    def rounds() -> Iterator[int]:
        for turn in range(EXAMPLES):
            yield from (some[turn] for _, some in sorted(by_class.items()) if turn < len(some))

    return [index for index, _ in zip(rounds(), range(EXAMPLES), strict=False)]


def thumbnail(image: Any) -> str:
    """A PIL image as a small data address, so that no file of a visitor is served."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    with io.BytesIO() as file:
        small.save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _chip(row: dict[str, Any], labels: tuple[str, ...]) -> str:
    return f'<span class="chip">{text(labels[row["label"]])}</span>' if labels else '<span class="chip">text</span>'


def _shorten(row: dict[str, Any]) -> str:
    if "messages" in row:
        whole = " → ".join(turn["content"] for turn in row["messages"])
    else:
        whole = " → ".join(row[role] for role in ("text", "text_pair", "prompt", "completion") if role in row)
    return whole if len(whole) <= LONGEST else whole[: LONGEST - 1] + "…"
