"""What a dataset is, in the few facts that a plan keeps."""

from collections.abc import Mapping
from dataclasses import dataclass


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
