"""Answers compared with the truth."""

import random
from itertools import combinations

import pytest

from taskit.training.generation import rouge_l


def longest_common_by_brute_force(one, two):
    subsequences = {kept for n in range(len(one) + 1) for kept in combinations(one, n)}
    return max(len(kept) for n in range(len(two) + 1) for kept in combinations(two, n) if kept in subsequences)


@pytest.mark.parametrize("seed", range(50))
def test_rouge_is_the_f1_of_the_longest_common_subsequence(seed):
    choose = random.Random(seed)
    one, two = (choose.choices("abc", k=choose.randint(0, 6)) for _ in range(2))
    common = longest_common_by_brute_force(one, two)
    precision, recall = common / max(len(one), 1), common / max(len(two), 1)
    f1 = 2 * precision * recall / (precision + recall) if common else 0.0
    assert rouge_l(" ".join(one), " ".join(two)) == pytest.approx(f1)


def test_the_example_of_the_paper():
    """Lin 2004, section 3.1: three of the four words of each are common, in order."""
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
