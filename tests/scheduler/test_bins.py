"""The worked example of bins.py, number by number, and the examples in the docstrings."""

import doctest
from importlib import import_module

import numpy as np
import pytest

from taskit.scheduler.bins import (
    BackPointers,
    backtrack,
    best_values,
    binned_plans,
    fill_table,
    moves_into,
    round_bytes,
)
from taskit.scheduler.options import SKIP, Option
from taskit.scheduler.trellis import build_trellis

ONLY_RANK_1 = [SKIP, Option(rank=1, bytes=1, parameters=0, gain=3)]
RANK_1_OR_2 = [*ONLY_RANK_1, Option(rank=2, bytes=2, parameters=0, gain=5)]


@pytest.fixture
def trellis():
    return build_trellis(np.array([[True], [True]]), np.array([2]), [RANK_1_OR_2, ONLY_RANK_1])


def gains(values, pointers):
    return [int(value) >> pointers.bits if value >= 0 else None for value in values]


def test_the_first_location_of_the_example(trellis):
    assert [layer.states for layer in trellis.layers] == [2, 1]
    assert [layer.entry_bytes for layer in trellis.layers] == [(2,), (2, 0)]
    layers = round_bytes(trellis, 1)
    pointers = BackPointers.of(layers)
    assert pointers == BackPointers(source_bits=1, bits=3)
    start = [(0, np.zeros(1, np.int64))]
    (unpaid, nothing), (paid, values) = (best_values(moves_into(s, start, layers[0], 5, pointers), 5) for s in (0, 1))
    assert (unpaid, gains(nothing, pointers)) == (0, [0])
    assert (paid, gains(values, pointers)) == (3, [3, 5])


def test_the_second_location_of_the_example_step_by_step(trellis):
    layers = round_bytes(trellis, 1)
    pointers = BackPointers.of(layers)
    known = [(0, np.array([0])), (3, np.array([3, 5]) << 3)]
    skip_unpaid, skip_paid, insert = moves_into(0, known, layers[1], 5, pointers)
    assert (skip_unpaid[0], skip_unpaid[1].tolist(), skip_unpaid[2]) == (0, [0], 0)
    assert (skip_paid[0], skip_paid[1].tolist(), skip_paid[2]) == (3, [24, 40], 1)
    assert (insert[0], insert[1].tolist(), insert[2]) == (3, [0, 25, 41], 26)  # the better source, then option 1
    first, best = best_values([skip_unpaid, skip_paid, insert], 5)
    assert (first, gains(best, pointers)) == (0, [0, None, None, 3, 6, 8])
    assert (skip_paid[1][0] + skip_paid[2], best[3]) == (25, 26)


def test_the_table_of_the_example(trellis):
    layers = round_bytes(trellis, 1)
    pointers = BackPointers.of(layers)
    table, values = fill_table(layers, 5)
    (row,) = table[2]
    assert (row.start, gains(values, pointers)) == (0, [0, None, None, 3, 6, 8])
    option, source = pointers.unpack(row.pointers)
    assert list(zip(option.tolist(), source.tolist(), strict=True))[3:] == [(1, 0), (1, 1), (1, 1)]
    assert pointers.unpack(table[1][1].pointers)[0].tolist() == [1, 2]
    assert (pointers.pack(3, 0, 1), pointers.pack(3, 1, 0)) == (3 << 3 | 0 << 1 | 1, 3 << 3 | 1 << 1 | 0) == (25, 26)


def test_the_way_back_of_the_example(trellis):
    layers = round_bytes(trellis, 1)
    table, _ = fill_table(layers, 5)
    ranks, price = backtrack(layers, table, np.array([0, 3, 4, 5]))
    assert ranks.tolist() == [[0, 0], [0, 1], [1, 1], [2, 1]]
    assert price.tolist() == [0, 3, 4, 5]
    assert binned_plans(trellis, range(6), span_bytes=5, bins=5) == [[0, 0]] * 3 + [[0, 1], [1, 1], [2, 1]]


@pytest.mark.parametrize("name", ["bins", "constraints", "gain", "search"])
def test_the_examples_in_the_docstrings(name):
    failed, tried = doctest.testmod(import_module(f"taskit.scheduler.{name}"))
    assert tried > 0
    assert failed == 0
