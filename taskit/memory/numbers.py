"""The second best: a step on real numbers for a model that meta tensors cannot take through one.

Data-dependent control flow and operators without a shape rule need numbers.  Steps with two rows and with three are
small enough for any machine that holds the weights (one row alone would spare copies: its transposes are contiguous).
Whatever a step makes grows by the same bytes with every further row, so that two steps give the bytes alive at each
moment of a third one of any size, and its peak, wherever that lies.

Left out: where the control flow of the two steps differs, their moments cannot be compared; the line through their
peaks lies below the peak of many rows by a few per cent where that falls into another moment.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from taskit.memory.conditions import Conditions
from taskit.memory.live import LiveStorages
from taskit.memory.profile import MemoryProfile

FEW, MORE = 2, 3  # rows of the two steps


def extrapolate_peak(step: Callable[[Conditions], LiveStorages], conditions: Conditions) -> int:
    """The peak, in bytes, of ``step`` with the whole batch."""
    few, more = (step(_with_rows(conditions, rows)) for rows in (FEW, MORE))
    moments = few.history, more.history
    if len(few.history) != len(more.history):
        moments = [few.peak], [more.peak]
    return max(_lines(moments[0], moments[1], conditions.batch.rows)) + conditions.runtime_bytes


def extrapolate_profile(measure: Callable[[Conditions], MemoryProfile], conditions: Conditions) -> MemoryProfile:
    """What ``measure`` would give for the whole batch, but for the transient bytes, which are left at 0."""
    few, more = (measure(_with_rows(conditions, rows)) for rows in (FEW, MORE))
    return replace(few.at_rows(conditions.batch.rows, FEW, more, MORE), transient_bytes=0)


def _lines(few: Sequence[int], more: Sequence[int], rows: int) -> tuple[int, ...]:
    return tuple(_line(a, b, rows) for a, b in zip(few, more, strict=True))


def _line(few: int, more: int, rows: int) -> int:
    return max(few + (rows - FEW) * (more - few), 0)


def _with_rows(conditions: Conditions, rows: int) -> Conditions:
    evaluation = conditions.evaluation and conditions.evaluation.with_rows(rows)
    return replace(conditions, batch=conditions.batch.with_rows(rows), evaluation=evaluation, on_numbers=True)
