"""The two rules of averaging against their literal equations, and what may be averaged at all."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taskit.errors import ZooError
from taskit.methods.compose import RULES, by_factors, by_update, composed_ranks, require_equal_ranks
from taskit.zoo.lora_branch import Branch
from tests.methods.adapters import MODULES, random_adapter, updates

WEIGHTS = st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=4)


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, matrix in found.items():
        torch.testing.assert_close(matrix, expected[name])


@given(WEIGHTS)
def test_the_update_rule_is_the_sum_of_updates(weights):
    adapters = [random_adapter(k, rank=1 + k, scaling=0.5 + k) for k in range(len(weights))]
    expected = {m: sum(w * updates(one)[m] for w, one in zip(weights, adapters, strict=True)) for m in MODULES}
    close(updates(by_update(adapters, weights)), expected)


@given(WEIGHTS)
def test_the_factor_rule_carries_the_cross_terms(weights):
    """(sum w B)(sum w A) = sum over all pairs (i, j) of w_i w_j B_i A_j, by hand."""
    adapters = [random_adapter(k, scaling=2.0) for k in range(len(weights))]
    pairs = [(i, j) for i in range(len(weights)) for j in range(len(weights))]
    expected = {
        m: 2.0 * sum(weights[i] * weights[j] * adapters[i][m].b @ adapters[j][m].a for i, j in pairs) for m in MODULES
    }
    close(updates(by_factors(adapters, weights)), expected)


def test_orthogonal_adapters_by_hand():
    """By hand: l = 2, A_1 and A_2 on different inputs: every B_i A_j with 1 / l^2."""
    first = {"m": Branch(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0], [0.0]]), 1.0)}
    second = {"m": Branch(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0], [4.0]]), 1.0)}
    factors = updates(by_factors([first, second], [0.5, 0.5]))["m"]
    assert factors.tolist() == [[0.5, 0.5], [1.0, 1.0]]
    assert updates(by_update([first, second], [0.5, 0.5]))["m"].tolist() == [[1.0, 0.0], [0.0, 2.0]]


@pytest.mark.parametrize("rule", RULES)
def test_one_adapter_alone_is_itself(rule):
    adapter, other = random_adapter(0, scaling=3.0), random_adapter(1, scaling=0.25)
    close(updates(RULES[rule]([adapter], [1.0])), updates(adapter))
    close(updates(RULES[rule]([adapter, other], [0.0, 1.0])), updates(other))


@pytest.mark.parametrize("rule", RULES)
def test_identical_adapters_are_unchanged_by_a_uniform_average(rule):
    close(updates(RULES[rule]([random_adapter(0)] * 4, [0.25] * 4)), updates(random_adapter(0)))


@pytest.mark.parametrize("rule", RULES)
def test_the_order_does_not_matter(rule):
    adapters = [random_adapter(k) for k in range(3)]
    weights = [1 / 3] * 3
    close(updates(RULES[rule](adapters, weights)), updates(RULES[rule](adapters[::-1], weights)))


def test_the_sign_of_all_weights_does_not_matter_to_the_factors():
    adapters, weights = [random_adapter(k) for k in range(3)], [0.3, -1.2, 0.7]
    there = by_factors(adapters, weights)
    back = by_factors(adapters, [-w for w in weights])
    for name in MODULES:
        assert torch.equal(updates(there)[name], updates(back)[name])


@pytest.mark.parametrize("rule", RULES)
def test_the_ranks_are_known_before(rule):
    adapters = [random_adapter(0), random_adapter(1)]
    ranks = [{name: len(one.a) for name, one in adapter.items()} for adapter in adapters]
    found = RULES[rule](adapters, [0.5, 0.5])
    assert composed_ranks(ranks, rule) == {name: len(one.a) for name, one in found.items()}


def test_the_update_rule_takes_adapters_of_different_modules():
    adapters = [random_adapter(0, rank=1, modules=("one",)), random_adapter(1, rank=3)]
    ranks = [{"one": 1}, {"one": 3, "two": 3}]
    found = by_update(adapters, [0.5, 0.5])
    assert {name: len(one.a) for name, one in found.items()} == {"one": 4, "two": 3}
    assert composed_ranks(ranks, "update") == {"one": 4, "two": 3}
    torch.testing.assert_close(updates(found)["two"], 0.5 * updates(adapters[1])["two"])


@pytest.mark.parametrize("odd", [{"one": 2, "two": 4}, {"one": 2}, {"one": 2, "two": 2, "three": 1}])
def test_factors_of_other_shapes_are_refused(odd):
    with pytest.raises(ZooError, match=re.escape("rule=update")):
        require_equal_ranks(["a", "b"], [{"one": 2, "two": 2}, odd])
    require_equal_ranks(["a", "b"], [{"one": 2, "two": 2}, {"two": 2, "one": 2}])
