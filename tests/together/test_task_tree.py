"""S and the tree against hand-computed numbers, scipy, and brute force over nested partitions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from taskit.errors import PlanError
from taskit.together.task_tree import (
    cut,
    gradient_similarity,
    level_of,
    require_groups,
    similarity_matrix,
    usual_groups,
)

NUMBERS = st.lists(st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-3), min_size=1, max_size=8)


def test_similarity_by_hand():
    """By hand: (.5, 2/3, -.25) with (.5, -1/3, -.75)."""
    found = gradient_similarity(torch.tensor([1.0, 2.0, -1.0]), torch.tensor([1.0, -1.0, -3.0]))
    left, right = np.array([0.5, 2 / 3, -0.25]), np.array([0.5, -1 / 3, -0.75])
    assert found == pytest.approx(left @ right / np.linalg.norm(left) / np.linalg.norm(right))
    assert found == pytest.approx(0.2575, abs=5e-5)


@given(NUMBERS, st.floats(0.01, 100))
def test_of_a_gradient_with_itself_its_multiple_and_its_opposite(numbers, factor):
    g = torch.tensor(numbers, dtype=torch.float64)
    expected = float(g.any())
    assert gradient_similarity(g, factor * g) == pytest.approx(expected)
    assert gradient_similarity(g, -g) == pytest.approx(-expected)


def test_gradients_that_do_not_overlap_are_not_similar():
    assert gradient_similarity(torch.tensor([1.0, 2.0, 0, 0, 0]), torch.tensor([0, 0, 0, -1.0, 5.0])) == 0


def test_independent_gradients_are_hardly_similar():
    g, h = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    assert abs(gradient_similarity(g, h)) < 0.03


def test_the_matrix_is_the_mean_over_pairs_of_batches():
    choose = torch.Generator().manual_seed(0)
    gradients = [[torch.randn(9, generator=choose) for _ in range(k)] for k in (1, 2, 3)]
    found = similarity_matrix(gradients)
    pairs = [gradient_similarity(g, h) for g in gradients[1] for h in gradients[2]]
    assert found[1, 2] == found[2, 1] == pytest.approx(sum(pairs) / 6)
    assert np.diag(found).tolist() == [1, 1, 1]


def test_planted_groups_are_found():
    similarity = np.full((4, 4), 0.1) + 0.9 * np.eye(4)
    similarity[0, 3] = similarity[3, 0] = 0.8
    similarity[1, 2] = similarity[2, 1] = 0.6
    assert cut(similarity, (1, 2, 3, 4)) == (
        ((0, 1, 2, 3),),
        ((0, 3), (1, 2)),
        ((0, 3), (1,), (2,)),
        ((0,), (1,), (2,), (3,)),
    )


def random_similarity(seed, tasks):
    values = np.random.default_rng(seed).uniform(-1, 1, (tasks, tasks))
    return (values + values.T) / 2 * (1 - np.eye(tasks)) + np.eye(tasks)


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_the_cuts_are_those_of_scipy_and_nested(seed, tasks):
    similarity = random_similarity(seed, tasks)
    stages = cut(similarity, tuple(range(1, tasks + 1)))
    tree = linkage(squareform(1 - similarity, checks=False), "average")
    for number, groups in enumerate(stages, 1):
        labels = fcluster(tree, number, "maxclust")
        assert {tuple(np.flatnonzero(labels == label).tolist()) for label in labels} == set(groups)
        assert len(groups) == number
        assert sorted(task for group in groups for task in group) == list(range(tasks))
    for coarse, fine in pairwise(stages):
        assert all(any(set(group) <= set(wide) for wide in coarse) for group in fine)


def partitions(items):
    """All partitions of a list, by brute force."""
    if not items:
        yield []
        return
    head, *rest = items
    for smaller in partitions(rest):
        yield [[head], *smaller]
        for k, group in enumerate(smaller):
            yield [*smaller[:k], [head, *group], *smaller[k + 1 :]]


def within(similarity, groups):
    """Mean S over the pairs that share a group."""
    pairs = [similarity[t, u] for group in groups for t in group for u in group if t < u]
    return np.mean(pairs)


@pytest.mark.parametrize("seed", range(5))
def test_clear_groups_are_the_best_of_all_partitions(seed):
    """Two planted pairs and one triple, with noise: no other partition into three has more similar groups."""
    truth = [(0, 3), (1, 4), (2, 5)]
    noise = random_similarity(seed, 6)
    similarity = 0.2 * noise + 0.8 * np.eye(6)
    for t, u in truth:
        similarity[t, u] = similarity[u, t] = 0.7
    best = max((p for p in partitions(list(range(6))) if sorted(map(len, p)) == [2, 2, 2]),
               key=lambda p: within(similarity, p))  # fmt: skip
    assert cut(similarity, (3,))[0] == tuple(sorted(tuple(sorted(group)) for group in best)) == tuple(truth)


@pytest.mark.parametrize(
    ("groups", "tasks", "blocks", "says"),
    [
        ((1,), 1, 4, "Only one dataset"),
        ((2, 1), 3, 4, "decreases"),
        ((1, 4), 3, 4, "at most 3"),
        ((1, 1, 2, 2, 3), 3, 4, "5 stages for 4 blocks"),
        ((0, 1), 3, 4, "below 1"),
        ((), 3, 4, "below 1"),
    ],
)
def test_numbers_that_make_no_tree(groups, tasks, blocks, says):
    with pytest.raises(PlanError, match=says):
        require_groups(groups, tasks, blocks)


@given(st.integers(2, 9), st.integers(1, 30))
def test_the_usual_groups_make_a_tree(tasks, blocks):
    groups = usual_groups(tasks, blocks)
    require_groups(groups, tasks, blocks)
    assert groups[-1] == tasks


def test_the_usual_groups_of_four_tasks_are_the_papers():
    assert usual_groups(4, 12) == (1, 1, 2, 4)
    assert usual_groups(3, 2) == (1, 3)


def test_stages_are_runs_of_blocks_of_equal_length():
    assert [level_of(block, 12, 4) for block in range(12)] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert [level_of(block, 3, 2) for block in range(3)] == [0, 0, 1]
