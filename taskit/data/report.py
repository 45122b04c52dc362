"""What `taskit check` knows about a dataset; how it is shown is decided elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskit.data.info import DataInfo

EXAMPLES = 3  # how many places are named per reason


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows left out for one reason; `examples` are the places of the first few."""

    reason: str
    count: int
    examples: tuple[str, ...]


def drop(reason: str, places: Sequence[str]) -> Dropped:
    """The record of rows left out for one reason."""
    return Dropped(reason, len(places), tuple(places[:EXAMPLES]))


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
