"""The split is a partition with the counts one works out by hand."""

from collections import Counter

import pytest

from taskit.data.rows import split


@pytest.mark.parametrize("seed", range(20))
def test_partition_with_every_class_on_both_sides(seed):
    strata = ["a"] * (3 + seed) + ["b"] * 2 + ["c"] * 40
    train, held_out = split(strata, 0.2, seed)
    assert sorted(train + held_out) == list(range(len(strata)))
    assert train == sorted(train)
    assert held_out == sorted(held_out)
    assert {strata[p] for p in train} == {strata[p] for p in held_out} == {"a", "b", "c"}


def test_counts_by_hand():
    _, held_out = split(["a"] * 10 + ["b"] * 25 + ["c"] * 2 + ["d"], 0.2, seed=3)
    strata = ["a"] * 10 + ["b"] * 25 + ["c"] * 2 + ["d"]
    assert Counter(strata[p] for p in held_out) == {"a": 2, "b": 5, "c": 1}


def test_large_share_leaves_one_to_train():
    train, _ = split(["a", "a", "b", "b", "b"], 0.99, seed=0)
    assert len(train) == 2


def test_the_seed_decides():
    strata = [None] * 100
    assert split(strata, 0.2, 1) == split(strata, 0.2, 1)
    assert split(strata, 0.2, 1) != split(strata, 0.2, 2)
