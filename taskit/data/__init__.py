"""Datasets: `load` one, `check` it, batch it with a `Collator`."""

from taskit.data.collate import Collator, RowSize, longest, longest_rows, most_learned, row_sizes
from taskit.data.dataset import Dataset, check, load
from taskit.data.digits import write_digits
from taskit.data.info import ClassCount, DataInfo, Dropped, Report, Spread

__all__ = [
    "ClassCount",
    "Collator",
    "DataInfo",
    "Dataset",
    "Dropped",
    "Report",
    "RowSize",
    "Spread",
    "check",
    "load",
    "longest",
    "longest_rows",
    "most_learned",
    "row_sizes",
    "write_digits",
]
