"""The learning rate of a way in the transfer benchmark: the best on the mean of all seeds, where all were tried."""

import json

import pytest

from benchmarks.transferring.plans import PLANS, RATES, TRAINED, keep_plans, settled_rates

LOW, MIDDLE, HIGH = RATES


@pytest.fixture
def folders(tmp_path):
    """Two seeds; one seed alone would choose HIGH for `ours`, and the second tried `theirs` at one rate."""
    plans = {("ours", 40): (8, 0), ("ours", 80): (8, 8), ("theirs", 40): (0, 8), ("head", 40): (0, 0)}
    validations = (
        {(8, 0): (0.5, 0.7, 0.8), (0, 8): (0.6, 0.7, 0.8), (0, 0): (0.1,)},
        {(8, 0): (0.5, 0.9, 0.6), (0, 8): (0.6,), (0, 0): (0.2,)},
    )
    for seed, found in enumerate(validations):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        keep_plans(folder / PLANS, plans)
        rows = [
            {"ranks": ranks, "learning_rate": rate, "validation": value}
            for ranks, values in found.items()
            for rate, value in zip(RATES, values, strict=False)
        ]
        (folder / TRAINED).write_text(json.dumps(rows))
    return sorted(tmp_path.iterdir())


def test_all_seeds_choose_and_what_was_not_compared_is_said(folders):
    assert settled_rates(folders) == {"ours": (MIDDLE, True), "theirs": (LOW, False), "head": (LOW, True)}
    assert settled_rates(folders[:1])["ours"] == (HIGH, True)
