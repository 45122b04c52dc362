"""Soft targets against the equations of their papers."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from taskit.errors import PlanError
from taskit.planning.recipe import Recipe
from taskit.training.soften import soften

LABELS = torch.tensor([0, 2, 1, 2])


def seed(n=0):
    return np.random.SeedSequence([0, n])


def whole(batch, *args):
    """What softening makes of a step of one micro-batch."""
    (made,) = soften([batch], *args)
    return made


def photos():
    """Every pixel of image i is i, so that what was mixed into it can be read off."""
    return {"pixel_values": torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 6).clone(), "labels": LABELS}


def test_off_by_default():
    step = [photos()]
    assert soften(step, 3, Recipe(), seed()) is step


def test_smoothed_targets_give_the_loss_of_torch():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    targets = whole({"labels": LABELS}, 3, Recipe(label_smoothing=0.2), seed())["labels"]
    torch.testing.assert_close(cross_entropy(logits, targets), cross_entropy(logits, LABELS, label_smoothing=0.2))


@pytest.mark.parametrize("recipe", [Recipe(mixup=0.4), Recipe(cutmix=1.0), Recipe(mixup=0.4, cutmix=1.0)])
@pytest.mark.parametrize("n", range(8))
def test_targets_are_mixed_as_the_pixels_are(recipe, n):
    labels = torch.arange(4)  # with label i for image i, the mean pixel is the mean of the target
    mixed = whole({**photos(), "labels": labels}, 4, recipe, seed(n))
    means = mixed["pixel_values"].mean((1, 2, 3))
    torch.testing.assert_close((mixed["labels"] * labels).sum(1), means, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed["labels"].sum(1), torch.ones(4))


def test_cutmix_moves_whole_pixels_and_mixup_blends():
    cut = whole(photos(), 3, Recipe(cutmix=1.0), seed(1))["pixel_values"]
    assert set(cut.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    blended = whole(photos(), 3, Recipe(mixup=1.0), seed(1))["pixel_values"]
    assert all(len(image.unique()) == 1 for image in blended)


def test_the_same_step_mixes_the_same():
    one, two, other = (whole(photos(), 3, Recipe(mixup=1.0), seed(n))["pixel_values"] for n in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("recipe", [Recipe(mixup=0.4), Recipe(cutmix=1.0), Recipe(label_smoothing=0.1)])
@pytest.mark.parametrize("sizes", [(2, 2), (3, 1), (1, 1, 1, 1)])
def test_it_does_not_matter_how_many_rows_pass_at_once(recipe, sizes):
    images, labels = (photos()[name].split(sizes) for name in ("pixel_values", "labels"))
    parts = [{"pixel_values": a.clone(), "labels": b} for a, b in zip(images, labels, strict=True)]
    made, expected = soften(parts, 3, recipe, seed(5)), whole(photos(), 3, recipe, seed(5))
    for name, tensor in expected.items():
        assert torch.equal(torch.cat([part[name] for part in made]), tensor)


@pytest.mark.parametrize("wrong", [{"label_smoothing": 1.0}, {"mixup": -1}, {"cutmix": 99}, {"patience": 0}])
def test_values_that_mean_nothing_are_refused(wrong):
    with pytest.raises(PlanError, match=next(iter(wrong))):
        Recipe(**wrong)
