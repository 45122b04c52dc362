"""The figures of a report, from cleaned rows."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from taskit.data.info import ClassCount, DataInfo, Dropped, Report, Spread
from taskit.data.rows import SIZE, Rows, inputs

IMBALANCE = 10  # the ratio of largest to smallest class from which a report warns


def report(
    info: DataInfo, train: Rows, evaluation: Rows, dropped: tuple[Dropped, ...], warnings: tuple[str, ...]
) -> Report:
    """Count, measure and compare the rows of both splits."""
    train_inputs = [inputs(row) for row in train.values]
    eval_inputs = [inputs(row) for row in evaluation.values]
    seen = set(train_inputs)
    leakage = sum(one in seen for one in eval_inputs)
    classes = _classes(info.labels, train, evaluation)
    imbalance = max(c.train for c in classes) / min(c.train for c in classes) if classes else None
    return Report(
        info=info,
        rows=info.train_rows + info.eval_rows + sum(one.count for one in dropped),
        classes=classes,
        imbalance=imbalance,
        spreads=_spreads([*train.values, *evaluation.values]),
        train_duplicates=len(train_inputs) - len(seen),
        eval_duplicates=len(eval_inputs) - len(set(eval_inputs)),
        leakage_rows=leakage,
        empty_rows=sum(one.count for one in dropped if one.reason.startswith("empty")),
        unreadable_rows=sum(one.count for one in dropped if "image" in one.reason),
        dropped=dropped,
        warnings=(*warnings, *_warnings(classes, imbalance, leakage, dropped)),
    )


def _classes(labels: Sequence[str], train: Rows, evaluation: Rows) -> tuple[ClassCount, ...]:
    before = Counter(row.get("label") for row in train.values)
    after = Counter(row.get("label") for row in evaluation.values)
    return tuple(ClassCount(label, before[label], after[label]) for label in labels)


def _spreads(values: Sequence[dict]) -> tuple[Spread, ...]:
    """Characters and words of each text, width and height of images."""
    found = []
    if SIZE in values[0]:
        widths, heights = zip(*(row[SIZE] for row in values), strict=True)
        found += [_spread("image", "pixels wide", widths), _spread("image", "pixels high", heights)]
    for role in (role for role in values[0] if role not in ("label", "image", SIZE)):
        texts = [_flat(row[role]) for row in values]
        found.append(_spread(role, "characters", [len(text) for text in texts]))
        found.append(_spread(role, "words", [len(text.split()) for text in texts]))
    return tuple(found)


def _flat(cell: str | list[dict[str, str]]) -> str:
    return cell if isinstance(cell, str) else " ".join(turn["content"] for turn in cell)


def _spread(field: str, unit: str, sizes: Sequence[int]) -> Spread:
    # "nearest" picks sizes that occur, so that all four are whole numbers.
    return Spread(field, unit, *(int(size) for size in np.percentile(sizes, (0, 50, 95, 100), method="nearest")))


def _warnings(
    classes: Sequence[ClassCount], imbalance: float | None, leakage: int, dropped: Sequence[Dropped]
) -> tuple[str, ...]:
    found = [f"{one.count} rows were left out: {one.reason}." for one in dropped]
    if imbalance and imbalance >= IMBALANCE:
        found.append(f"The largest class has {imbalance:.0f} times the rows of the smallest one.")
    unseen = [one.label for one in classes if one.evaluation == 0]
    if unseen:
        found.append(f"{len(unseen)} classes have no row in the evaluation split, '{unseen[0]}' among them.")
    if leakage:
        found.append(f"{leakage} evaluation rows also stand in the training split, which flatters the accuracy.")
    return tuple(found)
