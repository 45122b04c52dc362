"""Which learned tasks make a soup: planted clusters, thresholds, and zoos that say nothing of their data."""

import pytest

from taskit.errors import ZooError
from taskit.methods.composing import MOST, embedding_similarities, most_similar
from taskit.transfer.similarity import TaskSimilarity
from taskit.zoo.zoo import LearnedTask


def learned(name, embedding=()):
    return LearnedTask(name, name, "", "base", (), embedding=tuple(embedding))


def used(similarities):
    return {one.adapter for one in similarities if one.used}


def test_of_two_planted_clusters_the_own_one_is_taken():
    near = [learned(f"near{k}", (1.0, 0.1 * k, 0.0)) for k in range(3)]
    far = [learned(f"far{k}", (0.0, 0.1 * k, 1.0)) for k in range(3)]
    found = most_similar(embedding_similarities((1.0, 0.0, 0.1), [*far, *near]))
    assert used(found) == {"near0", "near1", "near2"}
    assert found[0].phi == pytest.approx(0.1 / 1.01**0.5, rel=1e-4)  # far0: (0, 0, 1) with (1, 0, .1)


def test_at_most_five_and_at_least_one():
    many = [TaskSimilarity(str(k), str(k), 0.3 + 0.01 * k, True) for k in range(9)]
    assert used(most_similar(many)) == {str(k) for k in range(9 - MOST, 9)}
    none = [TaskSimilarity(str(k), str(k), -0.1 * k, False) for k in range(3)]
    assert used(most_similar(none)) == {"0"}


def test_the_order_of_the_zoo_does_not_matter():
    some = [TaskSimilarity(str(k), str(k), 0.1 * k, k > 1) for k in range(8)]
    assert used(most_similar(some)) == used(most_similar(some[::-1]))


def test_tasks_that_say_nothing_are_left_out_and_a_zoo_of_them_is_refused():
    mute, other = learned("mute"), learned("other model", (1.0, 2.0))
    found = embedding_similarities((1.0, 0.0, 0.0), [mute, other, learned("known", (1.0, 0.0, 0.0))])
    assert [one.adapter for one in found] == ["known"]
    assert found[0].phi == pytest.approx(1.0)
    with pytest.raises(ZooError, match="select=delta"):
        embedding_similarities((1.0, 0.0, 0.0), [mute, other])
