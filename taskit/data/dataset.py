"""A dataset ready to learn from: read, recognised, cleaned, split and reported on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import datasets

from taskit.data import checking, rows, sources
from taskit.data.cells import is_integer
from taskit.data.collate import Collator, row_sizes
from taskit.data.columns import Columns, has_label, recognise
from taskit.data.info import DataInfo, Dropped, Report, drop
from taskit.data.rows import Rows
from taskit.errors import DataError

VALIDATION = 0.1  # of the training rows: chooses the epoch, so that the evaluation rows choose nothing
NOTHING_LEARNED = "not one token to learn"
MODALITIES = {"image-classification": "image", "image-text-to-text": "image-text"}  # of other tasks: "text"


@dataclass(frozen=True, slots=True)
class Dataset:
    """Both splits with normalised columns, and what is known about them.

    The columns are `image` (PIL) or `text` and maybe `text_pair`, with `label` (an index into `info.labels`); or, for
    generation, `prompt` and `completion`, `messages` (a list of {role, content}), or `text`; or, for what is written
    about images, `image`, maybe `prompt`, and `completion`.
    """

    info: DataInfo
    train: datasets.Dataset
    evaluation: datasets.Dataset
    report: Report

    def learnable(self, collator: Collator) -> "Dataset":
        """The same without the rows of text that have not one token to learn; the report counts them.

        Raises DataError where no row is left to train or to evaluate.
        """
        if self.info.task != "text-generation":
            return self
        parts = []
        for split, what in ((self.train, "training"), (self.evaluation, "evaluation")):
            kept = [position for position, size in enumerate(row_sizes(split, collator)) if size.learned]
            if not kept:
                raise DataError(f"No {what} row has a token to learn: give longer texts, or a larger --max-length.")
            parts.append(split if len(kept) == len(split) else split.select(kept))
        lost = len(self.train) + len(self.evaluation) - sum(map(len, parts))
        if not lost:
            return self
        dropped = (*self.report.dropped, Dropped(NOTHING_LEARNED, lost, ()))
        info = replace(self.info, train_rows=len(parts[0]), eval_rows=len(parts[1]))
        report = replace(self.report, info=info, dropped=dropped)
        return Dataset(info, parts[0], parts[1], report)

    def validated(self, seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
        """The rows that train, and those set aside to choose the best epoch, by class where there are classes."""
        strata = self.train["label"] if self.info.labels else [0] * len(self.train)
        kept, held_out = rows.split(strata, VALIDATION, seed)
        return self.train.select(kept), self.train.select(held_out)


def load(
    source: str | Path, *, columns: Mapping[str, str] | None = None, seed: int = 0, eval_fraction: float = 0.2
) -> Dataset:
    """Read a file, a folder, a zip or `hub:OWNER/NAME[:config]`.

    `columns` names the column of a role ({"label": "verdict"}) where recognition should not decide. Where the source
    has no evaluation split with labels, `eval_fraction` of the rows are held out, stratified and seeded.
    Raises DataError, one sentence, when the source cannot be read or learned from.
    """
    if not 0 < eval_fraction < 1:
        raise DataError(f"The evaluation share {eval_fraction} is not between 0 and 1: choose for example 0.2.")
    read = sources.read(source)
    found = _recognise(read, columns)
    train = rows.clean(read.splits["train"], found)
    evaluation, notes = _given_evaluation(read, found)
    dropped = (*read.dropped, *train.dropped, *(evaluation.dropped if evaluation else ()))
    if "label" in dict(found.roles):
        train, evaluation, lone = _without_lone_classes(train, evaluation)
        dropped = (*dropped, *lone)
        _check_classes(train, evaluation, dropped)
    if evaluation is None:
        train, evaluation = _hold_out(train, eval_fraction, seed)
    labels = tuple(_sorted_labels({row["label"] for row in train.values if "label" in row}))
    info = DataInfo(
        source=str(source),
        fingerprint=rows.fingerprint(train, evaluation),
        modality=MODALITIES.get(found.task, "text"),
        task=found.task,
        columns=found.roles,
        labels=labels,
        train_rows=len(train.values),
        eval_rows=len(evaluation.values),
    )
    report = checking.report(info, train, evaluation, dropped, (*read.warnings, *found.warnings, *notes))
    return Dataset(info, rows.to_dataset(train, found, labels), rows.to_dataset(evaluation, found, labels), report)


def check(source: str | Path, *, columns: Mapping[str, str] | None = None, seed: int = 0) -> Report:
    """What `load` finds out about a dataset; raises DataError only when nothing can be learned from it."""
    return load(source, columns=columns, seed=seed).report


def _recognise(read: sources.Source, chosen: Mapping[str, str] | None) -> Columns:
    """Recognise the columns of the training split, unless labels stand only in another split."""
    train = read.splits["train"]
    labelled = [name for name, frame in read.splits.items() if name != "train" and has_label(frame)]
    if labelled and not has_label(train) and not chosen:
        raise DataError(f"Labels stand only in the {labelled[0]} split: add a label column to the training split.")
    return recognise(train, chosen)


def _given_evaluation(read: sources.Source, found: Columns) -> tuple[Rows | None, tuple[str, ...]]:
    """The validation split, else the test split, as long as it has usable rows; and a note on what is set aside."""
    needed = [column for _, column in found.roles]
    chosen, notes = None, []
    for name in ("validation", "test"):
        frame = read.splits.get(name)
        if frame is None:
            continue
        if chosen:
            notes.append(f"The {name} split ({len(frame)} rows) is left untouched.")
            continue
        lacking = [column for column in needed if column not in frame.columns]
        cleaned = None if lacking else rows.clean(frame, found)
        if cleaned and cleaned.values:
            chosen = cleaned
        else:
            why = f"it has no column '{lacking[0]}'" if lacking else "no row of it is complete"
            notes.append(f"The {name} split is left aside: {why}.")
    return chosen, tuple(notes)


def _without_lone_classes(train: Rows, evaluation: Rows | None) -> tuple[Rows, Rows | None, tuple[Dropped, ...]]:
    """Leave out the classes of a single example, which cannot be both learned and evaluated."""
    both = [*train.values, *(evaluation.values if evaluation else ())]
    counts = Counter(row["label"] for row in both)
    origins = []

    def keep(some: Rows) -> Rows:
        lone = [p for p, row in enumerate(some.values) if counts[row["label"]] == 1]
        origins.extend(f"{some.origins[p]} ('{some.values[p]['label']}')" for p in lone)
        return some.take(sorted(set(range(len(some.values))).difference(lone)))

    train, evaluation = keep(train), keep(evaluation) if evaluation else None
    return train, evaluation, (drop("class with one example", origins),) if origins else ()


def _check_classes(train: Rows, evaluation: Rows | None, dropped: tuple[Dropped, ...]) -> None:
    classes = {row["label"] for row in train.values}
    if len(classes) < 2:
        found = f"only the class '{next(iter(classes))}'" if classes else "no class"
        lost = "; ".join(f"{one.reason}: {one.count} rows, such as {one.examples[0]}" for one in dropped)
        raise DataError(
            f"There is {found} with two usable examples: give at least two classes of two examples each"
            + (f" (left out: {lost})." if lost else ".")
        )
    strange = sorted({row["label"] for row in evaluation.values} - classes) if evaluation else []
    if strange:
        shown = ", ".join(f"'{label}'" for label in strange[:5])
        raise DataError(f"The labels {shown} stand only in the evaluation split: add examples of them to training.")


def _hold_out(train: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    if len(train.values) < 2:
        raise DataError(f"Only {len(train.values)} usable rows were found: give at least two.")
    kept, held_out = rows.split([row.get("label") for row in train.values], fraction, seed)
    return train.take(kept), train.take(held_out)


def _sorted_labels(labels: set[str]) -> list[str]:
    if all(map(is_integer, labels)):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)
