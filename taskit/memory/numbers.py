"""The second best: a step on real numbers for a model that meta tensors cannot take through one.

Data-dependent control flow and operators without a shape rule need numbers.  A step with one row and one with two
are small enough for any machine that holds the weights, and tell what every further row costs.  The peak of few
rows may lie in another moment of the step than that of many: a few per cent, where meta tensors are exact.
"""

from collections.abc import Callable
from dataclasses import replace

from taskit.memory.conditions import Conditions
from taskit.memory.profile import MemoryProfile, Storage


def extrapolate_bytes(measure: Callable[[Conditions], int], conditions: Conditions) -> int:
    """What ``measure`` would give for the whole batch, by its values for one row and for two."""
    one, two = (measure(_with_rows(conditions, rows)) for rows in (1, 2))
    return _line(one, two, conditions.batch.rows)


def extrapolate_profile(measure: Callable[[Conditions], MemoryProfile], conditions: Conditions) -> MemoryProfile:
    """The same for every part of a profile."""
    one, two = (measure(_with_rows(conditions, rows)) for rows in (1, 2))
    rows = conditions.batch.rows

    def lines(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(_line(x, y, rows) for x, y in zip(a, b, strict=True))

    sizes = [{storage.needed_by: storage.bytes for storage in part.storages} for part in (one, two)]
    needs = sorted({*sizes[0], *sizes[1]})
    return replace(
        one,
        constant_bytes=_line(one.constant_bytes, two.constant_bytes, rows),
        rank_bytes=lines(one.rank_bytes, two.rank_bytes),
        fixed_bytes=lines(one.fixed_bytes, two.fixed_bytes),
        storages=tuple(Storage(_line(sizes[0].get(k, 0), sizes[1].get(k, 0), rows), k) for k in needs),
        transient_bytes=_line(one.transient_bytes, two.transient_bytes, rows),
    )


def _line(one: int, two: int, rows: int) -> int:
    return max(one + (rows - 1) * (two - one), 0)


def _with_rows(conditions: Conditions, rows: int) -> Conditions:
    return replace(conditions, batch=conditions.batch.with_rows(rows), on_numbers=True)
