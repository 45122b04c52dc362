"""Embeddings of tasks: against hand-computed cosines, and the Fisher information of a logistic regression."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from taskit.transfer.fisher import likeness_of, task2vec_cosine
from taskit.transfer.sensitivity import _filter_norms, fisher_filters

VECTORS = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3).map(torch.tensor)


def test_the_cosine_by_hand():
    """By hand; the plain cosine of the two is 0.1414."""
    assert task2vec_cosine(torch.tensor([1.0, 2, 0]), torch.tensor([1.0, 0, 3])) == pytest.approx(0.2, abs=1e-5)


@given(VECTORS, VECTORS, st.floats(1e-3, 1e3))
def test_the_cosine_is_symmetric_and_1_for_multiples(one, other, factor):
    assert task2vec_cosine(one, other) == pytest.approx(task2vec_cosine(other, one), abs=1e-6)
    assert task2vec_cosine(one, factor * one) == pytest.approx(1.0, abs=1e-4)


def test_small_fisher_values_are_no_special_case():
    """With the published absolute eps the values would decide what is computed."""
    one, other = torch.tensor([1.0, 2, 0]), torch.tensor([1.0, 0, 3])
    assert task2vec_cosine(1e-9 * one, 1e-9 * other) == pytest.approx(task2vec_cosine(one, other), abs=1e-5)


def test_nothing_has_no_likeness():
    assert task2vec_cosine(torch.zeros(3), torch.ones(3)) == 0.0
    assert task2vec_cosine(torch.zeros(3), torch.zeros(3)) == 0.0


def test_likeness_is_the_mean_over_matrices():
    one = {"a": torch.tensor([1.0, 2, 0]), "b": torch.ones(2)}
    assert likeness_of(one, {"a": torch.tensor([1.0, 0, 3]), "b": torch.ones(2)}) == pytest.approx(0.6, abs=1e-4)


def test_fisher_of_a_logistic_regression():
    """By hand: sum (p - y)^2 x^2 / n for each output, here averaged over the inputs."""

    class Regression(nn.Module):
        supports_gradient_checkpointing = False

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

    torch.manual_seed(0)
    model, x, y = Regression().requires_grad_(False), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    examples = [{"x": x[i : i + 1], "y": y[i : i + 1]} for i in range(5)]
    found = fisher_filters(model, examples, lambda b: cross_entropy(model.linear(b["x"]), b["y"]), ["linear"])
    p = (x @ model.linear.weight.T + model.linear.bias).softmax(1)
    error = p - nn.functional.one_hot(y, 2)
    expected = (error[:, :, None].square() * x[:, None].square()).mean(0).mean(1)
    torch.testing.assert_close(found["linear"].float(), expected)


@pytest.mark.parametrize("tokens", [3, 40])
def test_filters_are_the_squares_of_the_whole_gradient_however_many_tokens(tokens):
    torch.manual_seed(0)
    d, x = torch.randn(tokens, 5, dtype=torch.float64), torch.randn(tokens, 7, dtype=torch.float64)
    assert (tokens**2 > 5 * 7) == (tokens == 40), "one case for each of the two products"
    torch.testing.assert_close(_filter_norms(d, x), (d.T @ x).square().mean(1))
