"""What single modules are worth, as the transfer benchmark counts it."""

import numpy as np
import pytest

from benchmarks.transferring.agreement import insertion_gains, rho, split_half

EVEN, SURE = [0.0, 0.0], [np.log(3.0), 0.0]  # of two classes: one half each, three quarters to one


def test_gains_are_counted_from_the_head_trained_alone():
    """Loss ln 2 of the head alone; ln 4/3 where a module makes it sure of the right class, ln 4 of the wrong one."""
    truth = {"logits": np.array([[EVEN, EVEN], [SURE, SURE], [EVEN, EVEN]]), "labels": np.array([0, 1])}
    found = insertion_gains(truth)
    gains = [np.log(2) - np.log(4 / 3), np.log(2) - np.log(4)]
    np.testing.assert_allclose(found["loss"], [gains, [0.0, 0.0]], atol=1e-12)
    np.testing.assert_array_equal(found["accuracy"], np.zeros((2, 2)))


def test_accuracy_is_gained_where_only_the_module_hits():
    wrong = [0.0, 1.0]
    truth = {"logits": np.array([[wrong, wrong], [SURE, wrong]]), "labels": np.array([0, 1])}
    np.testing.assert_array_equal(insertion_gains(truth)["accuracy"], [[1.0, 0.0]])


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 1.0, 1.0), (100.0, 0.0, 0.5)])
def test_halves_agree_where_rows_do(noise, least, most):
    draw = np.random.default_rng(0)
    rows = np.arange(30.0)[:, None] + noise * draw.normal(size=(30, 60))
    assert least <= split_half(rows) <= most


def test_a_constant_agrees_with_nothing():
    assert rho(np.ones(5), np.arange(5.0)) == 0.0
