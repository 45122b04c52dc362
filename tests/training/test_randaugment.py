"""RandAugment: Pillow's operations by hand-computed pixels, reproducible by seed, epoch and row."""

import numpy as np
import pytest
import torch
from PIL import Image

from taskit.errors import PlanError
from taskit.planning.recipe import Recipe
from taskit.training.randaugment import OPERATIONS, Distorted, distort


def image(height=12, width=8):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pixels(of):
    return np.asarray(of, dtype=int)


def seed(n=0):
    return np.random.SeedSequence(n)


def test_the_fourteen_operations_of_the_paper():
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"auto-contrast", "equalize"}))
def test_no_strength_changes_nothing(name):
    assert np.array_equal(pixels(OPERATIONS[name](image(), 0.0)), pixels(image()))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.3, 1.0])
def test_size_and_colours_stay(name, strength):
    changed = OPERATIONS[name](image(), strength)
    assert (changed.size, changed.mode) == (image().size, "RGB")


def test_strengths_by_hand():
    one = Image.new("RGB", (4, 4), (200, 100, 15))
    assert pixels(OPERATIONS["brightness"](one, -1.0))[0, 0] == pytest.approx([20, 10, 1.5], abs=1)  # 0.1 of it
    assert pixels(OPERATIONS["posterize"](one, 1.0))[0, 0].tolist() == [192, 96, 0]  # the upper 4 bits
    assert pixels(OPERATIONS["solarize"](one, 0.5))[0, 0].tolist() == [55, 100, 15]  # 128 and above inverted
    moved = pixels(OPERATIONS["translate x"](image(12, 20), 1 / 9))  # by 0.45 / 9 of 20 pixels: one to the left
    assert np.array_equal(moved[:, :-1], pixels(image(12, 20))[:, 1:])
    assert (moved[:, -1] == 128).all()
    turned = pixels(OPERATIONS["rotate"](Image.new("RGB", (9, 9)), 1.0))
    assert (turned[0, 0] == 128).all()


def test_the_same_seed_distorts_the_same():
    one, two, other = (pixels(distort(image(), 30, seed(n))) for n in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_grey_images_come_back_in_colour():
    assert distort(image().convert("L"), 9, seed()).mode == "RGB"


def test_a_row_is_distorted_anew_in_every_epoch():
    rows = [{"image": image(), "label": n} for n in range(4)]
    first, again, second = (Distorted(rows, 30, 0, epoch) for epoch in (1, 1, 2))
    assert [row["label"] for row in (first[2], first[0])] == [2, 0]
    assert all(np.array_equal(pixels(first[n]["image"]), pixels(again[n]["image"])) for n in (3, 0, 2, 1))
    assert any(not np.array_equal(pixels(first[n]["image"]), pixels(second[n]["image"])) for n in range(4))
    assert len({pixels(first[n]["image"]).tobytes() for n in range(4)}) > 1


@pytest.mark.parametrize("wrong", [-1, 31, 2.5, True])
def test_magnitudes_that_mean_nothing_are_refused(wrong):
    with pytest.raises(PlanError, match="randaugment"):
        Recipe(randaugment=wrong)


def test_training_batches_alone_are_distorted():
    """Of images as a run reads them: epochs differ, evaluation sees the images as they are."""
    import datasets
    from accelerate import Accelerator

    from taskit.training.batches import Batches

    rows = datasets.Dataset.from_dict({"image": [image() for _ in range(6)], "label": [0, 1] * 3})
    rows = rows.cast_column("image", datasets.Image())

    class Collate:
        def __call__(self, given):
            return {"pixel_values": torch.tensor(np.stack([pixels(row["image"]) for row in given]))}

        def micro_batches(self, given, size):
            assert len(given) <= size
            return [self(given)]

    def batches(**recipe):
        return Batches(Collate(), Recipe(batch_size=6, **recipe), Accelerator(cpu=True), seed=0)

    def epoch(number, **recipe):
        return next(batches(**recipe).steps(rows, number))[0]["pixel_values"]

    plain = torch.tensor(pixels(image()))
    assert all(torch.equal(one, plain) for one in epoch(1))
    assert not all(torch.equal(one, plain) for one in epoch(1, randaugment=20))
    assert torch.equal(epoch(1, randaugment=20), epoch(1, randaugment=20))
    assert not torch.equal(epoch(1, randaugment=20), epoch(2, randaugment=20))
    assert all(torch.equal(one, plain) for one in next(iter(batches(randaugment=20).once(rows)))["pixel_values"])
