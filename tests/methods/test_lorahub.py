"""The search for weights: known optima, bounds, budget of evaluations, determinism."""

import math
from itertools import pairwise

import numpy as np
import pytest

from taskit.methods.lorahub import BOUND, EVALUATIONS, PENALTY, seek_weights

TARGET = (0.8, -0.6, 0.3)


def bowl(weights):
    return sum((w - t) ** 2 for w, t in zip(weights, TARGET, strict=True))


def objective(weights, loss=bowl):
    return loss(weights) + PENALTY * sum(map(abs, weights)) / len(weights)


def test_a_bowl_is_descended():
    """To a fifth of what w = 0 is above the optimum, whose every |w_i| the penalty lowers by 0.05 / 6."""
    best = objective(tuple(t - math.copysign(PENALTY / 6, t) for t in TARGET))
    left = sorted(objective(seek_weights(bowl, 3, seed=seed)) - best for seed in range(7))
    assert left[0] >= 0
    assert left[3] < 0.2 * (objective((0.0,) * 3) - best)


def test_w_of_zero_is_tried_first_and_kept_where_nothing_is_better():
    tried = []

    def loss(weights):
        tried.append(weights)
        return 1.0

    assert seek_weights(loss, 4, seed=0) == (0.0,) * 4  # everything else pays the penalty
    assert tried[0] == (0.0,) * 4


@pytest.mark.parametrize("count", [2, 3, 20])
def test_forty_evaluations_within_the_bounds(count):
    tried = []

    def loss(weights):
        tried.append(weights)
        return -sum(weights)  # wants out of the box

    found = seek_weights(loss, count, seed=1)
    assert len(tried) == EVALUATIONS
    assert all(abs(w) <= BOUND for weights in tried for w in weights)
    assert objective(found, lambda w: -sum(w)) == min(objective(w, lambda w: -sum(w)) for w in tried)


def test_the_best_so_far_never_grows_and_is_what_comes_back():
    seen = []
    found = seek_weights(bowl, 3, seed=2, on_progress=lambda n, least: seen.append((n, least)))
    assert [n for n, _ in seen] == list(range(1, EVALUATIONS + 1))
    assert all(later <= earlier for (_, earlier), (_, later) in pairwise(seen))
    assert seen[-1][1] == objective(found)


def test_the_same_seed_gives_the_same_weights_and_leaves_numpy_alone():
    np.random.seed(3)
    expected = np.random.default_rng(0).random(), np.random.rand()
    np.random.seed(3)
    assert seek_weights(bowl, 3, seed=5) == seek_weights(bowl, 3, seed=5)
    assert seek_weights(bowl, 3, seed=5) != seek_weights(bowl, 3, seed=6)
    assert np.random.rand() == expected[1]


def test_a_loss_that_is_no_number_is_never_the_best():
    found = seek_weights(lambda w: math.nan if w[0] > 0 else bowl((*w, 0.3)), 2, seed=0)
    assert found[0] <= 0
