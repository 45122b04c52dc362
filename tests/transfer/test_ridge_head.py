"""The closed-form head against refitting without each example in turn, and against plain use."""

import math

import pytest
import torch
import torch.nn.functional as F

from taskit.transfer.ridge_head import _leave_one_out, fit_head


def clusters(n, d, classes, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, d, generator=generator)
    features = 5 + 3 * (centres[labels] + spread * torch.randn(n, d, generator=generator))
    return features, labels


def logits(features, labels):
    head = fit_head(features, labels, 3)
    return F.linear(features, head.weight, head.bias)


@pytest.mark.parametrize(("n", "d"), [(20, 5), (12, 30)])
@pytest.mark.parametrize("ridge", [0.3, 10.0])
def test_leave_one_out_equals_refitting(n, d, ridge):
    features, labels = clusters(n, d, 3)
    z = features.double() - features.double().mean(0)
    y = F.one_hot(labels, 3).double()
    u, s, _ = torch.linalg.svd(z, full_matrices=False)
    error, _, predictions = _leave_one_out(u, s, y, ridge)
    brute = torch.zeros(n, 3, dtype=torch.float64)
    for i in range(n):
        keep = torch.arange(n) != i
        centre, target = z[keep].mean(0), y[keep].mean(0)
        x = z[keep] - centre
        w = torch.linalg.solve(x.T @ x + ridge * torch.eye(d, dtype=torch.float64), x.T @ (y[keep] - target))
        brute[i] = (z[i] - centre) @ w + target
    assert torch.allclose(predictions, brute, atol=1e-8)
    assert error == pytest.approx(float(((y - brute) ** 2).sum()))


def test_generalises_with_usable_logits():
    features, labels = clusters(600, 20, 4, spread=1.3)
    head = fit_head(features[:80], labels[:80], 4)
    logits = F.linear(features[80:], head.weight, head.bias)
    loss = F.cross_entropy(logits, labels[80:])
    assert (logits.argmax(1) == labels[80:]).float().mean() > 0.8
    assert loss < min(F.cross_entropy(scale * logits, labels[80:]) for scale in (0.4, 2.5))


def test_does_not_mind_the_scale_of_a_feature_or_a_constant_one():
    features, labels = clusters(60, 6, 3)
    scaled = torch.cat((features * torch.tensor([1, 100, 1, 0.01, 1, 1]), torch.full((60, 1), 7.0)), 1)
    plain, other = (logits(x, labels) for x in (features, scaled))
    assert torch.allclose(plain, other, atol=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_examples_and_absent_classes_are_fine(n):
    features, labels = clusters(n, 8, 2)
    head = fit_head(features, labels, 7)
    weight, bias = head.weight, head.bias
    assert weight.shape == (7, 8)
    assert bias.shape == (7,)
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()


def test_is_deterministic_and_flat_features_give_the_class_shares():
    features, labels = clusters(30, 10, 3)
    assert torch.equal(logits(features, labels), logits(features, labels))
    head = fit_head(torch.ones(4, 5), torch.tensor([0, 0, 0, 1]), 2)
    assert head.weight.abs().max() == 0
    assert head.bias[0] > head.bias[1]


def test_held_out_logits_are_those_of_a_head_that_never_saw_the_row():
    features, labels = clusters(1000, 20, 4, spread=1.8)
    inside, held_out, outside = torch.zeros(3, 5)
    for part in range(5):
        own = torch.arange(1000) // 80 == part
        head = fit_head(features[own], labels[own], 4)
        scores = F.linear(features, head.weight, head.bias)
        inside[part] = F.cross_entropy(scores[own], labels[own])
        held_out[part] = F.cross_entropy(head.held_out, labels[own])
        outside[part] = F.cross_entropy(scores[~own], labels[~own])
    assert (inside < held_out).all()
    assert held_out.mean() == pytest.approx(float(outside.mean()), rel=0.2)


def test_what_stays_unexplained_is_nothing_of_clear_classes_all_of_noise_and_between_of_the_rest():
    clear, labels = clusters(200, 20, 4, spread=0.05)
    mixed, _ = clusters(200, 20, 4, spread=2.0)
    noise = torch.randn(200, 20, generator=torch.Generator().manual_seed(1))
    shares = [fit_head(features, labels, 4).unexplained for features in (clear, mixed, noise)]
    assert shares[0] < 0.05 < 0.2 < shares[1] < 0.9 < shares[2] <= 1.0
    head = fit_head(mixed, labels, 5)  # a class that no row has does not count
    left = F.cross_entropy(F.linear(mixed, head.weight, head.bias), labels)
    assert head.unexplained == pytest.approx(float(left) / math.log(4), rel=1e-4)


def test_of_a_single_label_nothing_is_left_to_explain():
    assert fit_head(torch.randn(4, 5), torch.zeros(4, dtype=torch.long), 2).unexplained == 0
