"""Eqs. (3) and (2) by hand."""

import pytest
import torch
from torch import nn

from taskit.transfer.importance import TRIAL, UNIFORM, ActivationNorms, TaskImportance, gains_at, transfer
from taskit.transfer.similarity import TaskSimilarity, judge


def loudness_of(addition, base, bias=None, mask=None, kind="ratio"):
    module = nn.Linear(2, 2, bias=bias is not None)
    if bias is not None:
        module.bias = nn.Parameter(torch.tensor(bias))
    activation_norms = ActivationNorms()
    activation_norms.mask = mask
    with torch.no_grad():
        activation_norms.observe("k", module, base, addition)
    return activation_norms.values(("k", "absent"), kind)


BRANCH, BASE = torch.tensor([[1.0, -2.0], [0.0, 1.0]]), torch.tensor([[3.0, 1.0], [-2.0, 2.0]])


def test_hand_number():
    assert loudness_of(BRANCH, BASE) == (pytest.approx(4 / 8), 0.0)
    assert loudness_of(3 * BRANCH, BASE)[0] == pytest.approx(3 * 4 / 8)
    assert loudness_of(0 * BRANCH, BASE)[0] == 0
    assert loudness_of(BRANCH, 0 * BASE)[0] == pytest.approx(4 / 1e-8)


def test_variants_of_table_7_by_hand():
    assert loudness_of(BRANCH, BASE, kind="absolute") == (pytest.approx(4), 0.0)
    assert loudness_of(BRANCH, BASE, kind="l2")[0] == pytest.approx((6 / 18) ** 0.5)


def test_the_bias_of_the_base_does_not_count():
    bias = [10.0, -20.0]
    assert loudness_of(BRANCH, BASE + torch.tensor(bias), bias)[0] == pytest.approx(0.5)


def test_padding_does_not_count():
    padded = [torch.cat((x, torch.full((1, 2), torch.nan)))[None] for x in (BRANCH, BASE)]
    assert loudness_of(*padded, mask=torch.tensor([[1, 1, 0]]))[0] == pytest.approx(0.5)


def test_several_batches_are_a_ratio_of_sums():
    activation_norms, module = ActivationNorms(), nn.Linear(2, 2, bias=False)
    for row in range(2):
        activation_norms.observe("k", module, BASE[row : row + 1], BRANCH[row : row + 1])
    assert activation_norms.values(("k",))[0] == pytest.approx(0.5)


def test_transfer_by_hand():
    named = [(name, name) for name in "abc"]
    importances = [TaskImportance(n, n, (value, 0.0)) for n, value in zip("abc", (0.5, 0.1, 0.9), strict=True)]
    similarities = judge(named, (0.8, 0.5, 0.2), "raw")
    found = transfer(similarities, importances, (7.0, 8.0), "ratio")
    assert found == ({"a": pytest.approx(0.8 * 0.5), "b": pytest.approx(0.5 * 0.1)}, {})
    assert sum(found[0].values()) == pytest.approx(0.45)


def test_nothing_transferred_is_uniform():
    unused = [TaskSimilarity("a", "a", 0.1, False)]
    quiet = [TaskSimilarity("a", "a", 0.9, True)]
    assert transfer(unused, [TaskImportance("a", "a", (0.5, 0.2))], (0.0, 0.0)) == ({UNIFORM: 1.0},) * 2
    assert transfer(quiet, [TaskImportance("a", "a", (0.0, 0.0))], (0.0, 0.0)) == ({UNIFORM: 1.0},) * 2
    assert transfer([], [], (0.0, 0.0, 0.0)) == ({UNIFORM: 1.0},) * 3


def test_the_blend_by_hand():
    """Both used tasks share one voice; the trial has one of its own."""
    facts = (("a", 0.5, True, (30.0, 10.0)), ("b", 0.1, False, (1.0, 1.0)), ("c", 0.25, True, (0.0, 4.0)))
    similarities = [TaskSimilarity(name, name, phi, used) for name, phi, used, _ in facts]
    found = transfer(similarities, [TaskImportance(name, name, values) for name, *_, values in facts], (0.1, 0.3))
    one, other = 0.875**0.5, 1.875**0.5
    assert found == (
        {TRIAL: pytest.approx(0.5 / one), "a": pytest.approx(0.375 / one)},
        {TRIAL: pytest.approx(1.5 / other), "a": pytest.approx(0.125 / other), "c": pytest.approx(0.25 / other)},
    )
    assert [sum(addends.values()) for addends in found] == pytest.approx([one, other])


def test_where_gains_were_measured_the_blend_hears_no_other_task():
    """By hand: a is silent, and c's gains (0, 4) have mean 1 as (0, 2), a full voice whatever its phi."""
    similarities = [TaskSimilarity(name, name, phi, True) for name, phi in (("a", 0.5), ("c", 0.25))]
    importances = [TaskImportance("a", "a", (30.0, 10.0)), TaskImportance("c", "c", (0.0, 4.0), measured=True)]
    found = transfer(similarities, importances, (0.1, 0.3))
    assert found == (
        {TRIAL: pytest.approx(0.5**0.5)},
        {TRIAL: pytest.approx(1.5 / 3.5**0.5), "c": pytest.approx(2 / 3.5**0.5)},
    )
    others = [TaskImportance("a", "a", (3.0, 1.0), measured=True), importances[1]]
    both = transfer(similarities, others, (0.1, 0.3))  # phi 2/3 and 1/3 of one voice
    assert sum(both[1].values()) == pytest.approx((1.5 + 0.5 * 2 / 3 + 2 / 3) ** 0.5)
    assert transfer(similarities, importances, (0.1, 0.3), "ratio")[0] == {"a": 15.0}
    unused = [similarities[0], TaskSimilarity("c", "c", -0.25, False)]
    assert "a" in transfer(unused, importances, (0.1, 0.3))[0], "gains of a task that is not used say nothing"


def test_gains_are_found_by_name_and_0_where_nothing_was_measured():
    assert gains_at((("b", 0.5), ("gone", 3.0)), ("a", "b")) == (0.0, 0.5)


def test_the_blend_is_the_trials_alone_where_no_task_is_similar():
    unused = [TaskSimilarity("a", "a", -0.1, False)]
    found = transfer(unused, [TaskImportance("a", "a", (0.5, 0.2))], (2.0, 6.0))
    assert found == ({TRIAL: pytest.approx(0.5**0.5)}, {TRIAL: pytest.approx(1.5**0.5)})
    assert transfer([], [], (2.0, 6.0)) == found


def test_a_place_where_every_similar_task_is_empty_is_not_lost():
    similarities = [TaskSimilarity("a", "a", 0.9, True)]
    found = transfer(similarities, [TaskImportance("a", "a", (4.0, 0.0))], (1.0, 3.0))
    assert found[1] == {TRIAL: pytest.approx(1.5**0.5)}
