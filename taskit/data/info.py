"""What is known about a dataset: the facts that a plan keeps, and the report of `taskit check`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EXAMPLES = 3  # how many rows are named per reason


@dataclass(frozen=True, slots=True)
class DataInfo:
    """The identity of a dataset: the section `data` of plan.json.

    `fingerprint` is a SHA-256 over normalised rows, splits and labels: equal content gives an equal one,
    wherever it came from. `columns` pairs each role with the column that plays it in the source.
    `labels` is empty for text generation.
    """

    source: str
    fingerprint: str
    modality: str
    task: str
    columns: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    train_rows: int
    eval_rows: int

    @classmethod
    def from_dict(cls, values: Mapping) -> "DataInfo":
        """Undo `dataclasses.asdict`, also after a trip through JSON."""
        columns = tuple((role, column) for role, column in values["columns"])
        return cls(**{**values, "columns": columns, "labels": tuple(values["labels"])})


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows left out for one reason; `examples` say where the first few stand in the source."""

    reason: str
    count: int
    examples: tuple[str, ...]


def drop(reason: str, origins: Sequence[str]) -> Dropped:
    """The record of rows left out for one reason."""
    return Dropped(reason, len(origins), tuple(origins[:EXAMPLES]))


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many rows of one class stand on each side of the split."""

    label: str
    train: int
    evaluation: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Order statistics of one quantity over all kept rows: characters or words of a field, pixels of an image."""

    field: str
    unit: str
    minimum: int
    median: int
    p95: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a dataset.

    `rows` counts what was read from the splits in use, `dropped` what was left out of it. `imbalance` is the largest
    class over the smallest one in the training split (None without classes). Duplicates are rows whose inputs already
    stood in the same split; `leakage_rows` are evaluation rows whose inputs also stand in training. Both are kept.
    """

    info: DataInfo
    rows: int
    classes: tuple[ClassCount, ...]
    imbalance: float | None
    spreads: tuple[Spread, ...]
    train_duplicates: int
    eval_duplicates: int
    leakage_rows: int
    empty_rows: int
    unreadable_rows: int
    dropped: tuple[Dropped, ...]
    warnings: tuple[str, ...]

    @classmethod
    def from_dict(cls, values: Mapping) -> "Report":
        """Undo `dataclasses.asdict`, also after a trip through JSON."""
        nested = {
            "info": DataInfo.from_dict(values["info"]),
            "classes": tuple(ClassCount(**one) for one in values["classes"]),
            "spreads": tuple(Spread(**one) for one in values["spreads"]),
            "dropped": tuple(Dropped(**{**one, "examples": tuple(one["examples"])}) for one in values["dropped"]),
            "warnings": tuple(values["warnings"]),
        }
        return cls(**{**values, **nested})
