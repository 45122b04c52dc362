"""Every measure of similarity, by hand and against the literal equation."""

import pytest
import torch

from taskit.transfer.similarity import (
    TaskSimilarity,
    delta_cosine,
    displacement,
    gradient_cosine,
    ideal_feature,
    judge,
    raw_cosine,
    trial_similarities,
)


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 6, 5, generator=generator) for _ in range(3)]


def test_the_step_is_a_tenth_of_the_feature(tensors):
    x, gradient, _ = tensors
    step = ideal_feature(x, gradient) - x
    assert step.norm() == pytest.approx(0.1 * x.norm())
    assert torch.allclose(step / step.norm(), -gradient / gradient.norm(), atol=1e-6)
    assert torch.equal(ideal_feature(x, torch.zeros_like(x)), x)


def test_by_hand():
    x, gradient = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, -2.0]])
    assert delta_cosine(gradient, x, torch.tensor([[1.0, 3.0]])).tolist() == [1.0]
    assert delta_cosine(gradient, x, torch.tensor([[4.0, 0.0]])).tolist() == [0.0]
    assert delta_cosine(gradient, x, torch.tensor([[0.0, -1.0]])).item() == pytest.approx(-(0.5**0.5))
    assert raw_cosine(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])).item() == pytest.approx(24 / 25)
    assert gradient_cosine(-6.0, 3.0, 4.0) == 0.5
    assert gradient_cosine(0.0, 0.0, 0.0) == 0.0


def test_literal_equation_over_the_tokens_that_count(tensors):
    x, gradient, moved = tensors
    mask = (torch.arange(6) < torch.tensor([[6], [3], [1], [5]])).long()
    for found, left, right in (
        (raw_cosine(x, moved, mask), x, moved),
        (delta_cosine(gradient, x, moved, mask), -gradient, moved - x),
    ):
        for i in range(4):
            a, b = left[i][mask[i] == 1].flatten(), right[i][mask[i] == 1].flatten()
            assert found[i].item() == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-6)


def test_padding_may_hold_anything(tensors):
    x, gradient, moved = tensors
    mask = torch.ones(4, 6).long()
    mask[:, 4:] = 0
    plain = delta_cosine(gradient[:, :4], x[:, :4], moved[:, :4])
    moved[:, 4:] = torch.nan
    assert torch.allclose(delta_cosine(gradient, x, moved, mask), plain)


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 50.0])
def test_delta_does_not_depend_on_eta(tensors, factor):
    x, gradient, moved = tensors
    assert torch.allclose(delta_cosine(factor * gradient, x, moved), delta_cosine(gradient, x, moved), atol=1e-6)


def test_vanishing_vectors_are_similar_to_nothing(tensors):
    x, gradient, moved = tensors
    assert delta_cosine(torch.zeros_like(x), x, moved).tolist() == [0.0] * 4
    assert delta_cosine(gradient, x, x).tolist() == [0.0] * 4


def test_thresholds():
    named = (("a", "zoo/a"), ("b", "zoo/b"))
    assert judge(named, (0.36, 0.35), "raw")[1] == TaskSimilarity("b", "zoo/b", 0.35, False)
    assert [s.used for s in judge(named, (0.36, 0.35), "raw")] == [True, False]
    assert [s.used for s in judge(named, (0.01, -0.01), "delta")] == [True, False]


def test_a_displacement_is_the_direction_of_the_mean_over_the_tokens_that_count(tensors):
    x, moved, _ = tensors
    mask = (torch.arange(6) < torch.tensor([[6], [3], [1], [5]])).long()
    found = displacement(x, moved, mask)
    for i in range(4):
        mean = (moved - x)[i][mask[i] == 1].mean(0).double()
        assert torch.allclose(found[i], mean / mean.norm())
    assert torch.equal(displacement(x[:, 0], moved[:, 0]), displacement(x[:, :1], moved[:, :1]))
    assert displacement(x, x).abs().max() == 0
    moved[:, 5] = torch.nan
    assert not displacement(x, moved, mask * torch.tensor([[1, 1, 1, 1, 1, 0]])).isnan().any()


def test_trial_by_hand():
    """The other task's direction is that of the drift, as strong as both are alike; one task alone has none."""
    tried, first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
    assert trial_similarities(tried, [first], 0.5) == pytest.approx([0.6])
    target_update = torch.tensor([1.0, 0.8]) / (1 + 0.8**2) ** 0.5
    assert trial_similarities(tried, [first, second], 0.5)[0] == pytest.approx(float(first[0] @ target_update))
    target_update = torch.tensor([0.75, 0.25 * 0.8]) / (0.75**2 + 0.2**2) ** 0.5
    assert trial_similarities(tried, [first, second], 0.0)[0] == pytest.approx(float(first[0] @ target_update))
    assert trial_similarities(tried, [first, -first], 0.5) == pytest.approx([0.6, -0.6])
    assert trial_similarities(tried, [], 0.5) == []


def test_what_the_features_explain_divides_the_say_between_trial_and_drift():
    tried, first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
    to_second = [trial_similarities(tried, [first, second], rho)[1] for rho in (0.0, 0.5, 1.0)]
    assert 0 < to_second[0] < to_second[1] < to_second[2] < 0.8  # the trial alone says 0, the drift alone 0.8
    assert trial_similarities(tried, [first], 1.0) == pytest.approx([0.6])  # nothing shared is known of one task


@pytest.mark.parametrize("unexplained", [0.0, 0.3, 0.5, 1.0])
def test_trial_is_the_mean_over_examples_of_the_literal_equation(unexplained):
    choose = torch.Generator().manual_seed(1)
    draws = (1 + torch.randn(7, 5, generator=choose) for _ in range(4))
    tried, *moves = (torch.nn.functional.normalize(draw, dim=1) for draw in draws)
    shared = sum(float((moves[i] * moves[j]).sum(1).mean()) for i, j in ((0, 1), (0, 2), (1, 2))) / 3
    assert shared > 0.05
    for i, phi in enumerate(trial_similarities(tried, moves, unexplained)):
        expected = []
        for n in range(7):
            drift = sum(move[n] for j, move in enumerate(moves) if j != i)
            say = (unexplained + 0.5) / 2
            target_update = (1 - say) * tried[n] + say * shared * drift / drift.norm()
            expected.append(float(target_update @ moves[i][n] / target_update.norm()))
        assert phi == pytest.approx(sum(expected) / 7, abs=1e-6)
