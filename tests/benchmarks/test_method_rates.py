"""benchmarks/methods.py: the rate of a method is settled once, where validation is clear; what its page says."""

import json

import pytest

from benchmarks.methods import FASTER, at_best_rate, folder_of, joined, judged, unpack
from benchmarks.page.methods import section


def resolved(usual, other, rows=25, learns=True):
    """The row and the rates that come of two validation accuracies, the second at FASTER."""
    asked, rates = [], {}

    def run(regime, method, times):
        asked.append(times)
        row = {"regime": regime, "method": method, "faster": times, "learns": learns, "validation_rows": rows}
        return row | {"validation": usual if times == 1 else other}

    return at_best_rate(run, "same peak", "cdra", rates), rates["same peak", "cdra"], asked


@pytest.mark.parametrize(("other", "times"), [(0.7, FASTER), (0.59, 1), (0.4, 1)])  # a standard error is 0.1
def test_the_faster_rate_is_taken_beyond_a_standard_error(other, times):
    row, chosen, asked = resolved(0.5, other)
    assert (row["faster"], chosen, asked) == (times, times, [1, FASTER])
    assert row["tried"] == [0.5, other]


def test_what_trains_no_lora_is_run_once():
    row, chosen, asked = resolved(0.5, 0.9, learns=False)
    assert (row["faster"], chosen, asked) == (1, 1, [1])
    assert "tried" not in row


def test_families_of_two_commands_stand_together(tmp_path):
    out = tmp_path / "methods.json"
    assert joined(out, {"command": "b", "seeds": [0]}) == {"command": "b", "seeds": [0]}
    out.write_text(json.dumps({"command": "a", "seeds": [1, 2], "text": {"means": []}}))
    both = joined(out, {"command": "b", "seeds": [0]})
    assert both == {"command": ["a", "b"], "seeds": [0, 1, 2], "text": {"means": []}}


@pytest.mark.parametrize(
    ("ours", "holds"),
    [
        ((0.8, 0.9), True),
        ((0.7, 0.7), True),
        ((0.69, 0.79), False),
    ],  # better; behind by less than the spread; by more
)
def test_the_best_is_taskits_or_not_beyond_the_spread_of_the_seeds(ours, holds):
    def mean(method, by_seed, peak=1):
        one = {
            "regime": "same peak",
            "method": method,
            "by_seed": dict(enumerate(by_seed)),
            "faster": 1,
            "spread": 0.1,
        }
        one |= {"accuracy": sum(by_seed) / len(by_seed), "predicted_peak_bytes": peak, "measured_peak_bytes": 1}
        return one | {"adapter_bytes": 1, "trainable_parameters": 1, "train_seconds": 1}

    means = [mean("taskit", ours), mean("eva", (0.7, 0.8)), mean("full", (1, 1), None)]
    text = {
        "tasks": ["t"],
        "train_rows": 1,
        "test_rows": 1,
        "left_out": [],
        "means": means,
        "verdicts": [],
        "rows": [],
    }
    assert section({"text": text, "budget": "60%", "rank": 4, "faster": 4}).holds is holds


def test_an_earlier_table_goes_on_where_it_was(tmp_path):
    row = {"task": "t", "regime": "same peak", "method": "taskit+pi", "seed": 1, "faster": 4}
    place = folder_of(tmp_path, "text", *row.values())
    found = {"text": {"rows": [row, row | {"seed": 2}]}, "budget": "60%"}
    newer = folder_of(tmp_path, "text", *(row | {"seed": 2}).values())
    newer.mkdir(parents=True)
    (newer / "row.json").write_text('{"newer": true}')
    unpack(found, tmp_path)
    assert [json.loads((one / "row.json").read_text()) for one in (place, newer)] == [row, {"newer": True}]


@pytest.mark.parametrize(
    ("gains", "word"),
    [
        ([0.2, 0.3], "confirmed"),
        ([-0.2, -0.3], "refuted"),
        ([0.3, -0.2], "spread"),
        ([0.3], "one seed decides nothing"),
    ],
)
def test_a_claim_is_judged_beyond_the_spread_of_the_seeds(gains, word):
    assert judged(gains).endswith(word)
