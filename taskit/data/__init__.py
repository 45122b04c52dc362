"""Datasets: `load` one, `check` it, batch it with a `Collator`."""

from taskit.data.collate import Collator, longest_rows
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
    "Spread",
    "check",
    "load",
    "longest_rows",
    "write_digits",
]
