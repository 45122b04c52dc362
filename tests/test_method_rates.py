"""The learning rate of a method in benchmarks/methods.py: settled once, and only where validation is clear."""

import pytest

from benchmarks.methods import FASTER, at_best_rate


def settled(usual, other, rows=25, learns=True):
    """The row and the rates that come of two validation accuracies, the second at FASTER."""
    asked, rates = [], {}

    def run(regime, method, times):
        asked.append(times)
        row = {"regime": regime, "method": method, "faster": times, "learns": learns, "validation_rows": rows}
        return row | {"validation": usual if times == 1 else other}

    return at_best_rate(run, "same peak", "cdra", rates), rates["same peak", "cdra"], asked


@pytest.mark.parametrize(("other", "times"), [(0.7, FASTER), (0.59, 1), (0.4, 1)])  # a standard error is 0.1
def test_the_faster_rate_is_taken_beyond_a_standard_error(other, times):
    row, chosen, asked = settled(0.5, other)
    assert (row["faster"], chosen, asked) == (times, times, [1, FASTER])
    assert row["tried"] == [0.5, other]


def test_what_trains_no_lora_is_run_once():
    row, chosen, asked = settled(0.5, 0.9, learns=False)
    assert (row["faster"], chosen, asked) == (1, 1, [1])
    assert "tried" not in row
