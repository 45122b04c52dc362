"""RandAugment: every training image distorted by two random operations of one common magnitude.

Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space", section 3 and
figure 2; the ranges of the operations are those of its table of AutoAugment's (Cubuk et al. 2019, table 6).

torchvision offers it, and timm, which needs torchvision; that comes compiled for one build of PyTorch each, which is
too much to install for fourteen calls of Pillow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from taskit.planning.recipe import MAGNITUDES

OPERATIONS_AN_IMAGE = 2  # N of the paper
GREY = (128, 128, 128)  # of what comes into view at the edges

Operation = Callable[[Image.Image, float], Image.Image]


def _enhance(kind: Callable[[Image.Image], Any]) -> Operation:
    return lambda image, strength: kind(image).enhance(1 + 0.9 * strength)


def _moved(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image.Image:
    """Output pixel (x, y) is input pixel (ax + by + c, dx + ey + f)."""
    return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), fillcolor=GREY)


# Each takes an RGB image and a strength: -1 to 1, whose sign only the first nine heed; 0 changes nothing.
OPERATIONS: dict[str, Operation] = {
    "shear x": lambda image, s: _moved(image, 1, 0.3 * s, 0, 0, 1, 0),
    "shear y": lambda image, s: _moved(image, 1, 0, 0, 0.3 * s, 1, 0),
    "translate x": lambda image, s: _moved(image, 1, 0, 0.45 * s * image.width, 0, 1, 0),
    "translate y": lambda image, s: _moved(image, 1, 0, 0, 0, 1, 0.45 * s * image.height),
    "rotate": lambda image, s: image.rotate(30 * s, fillcolor=GREY),
    "brightness": _enhance(ImageEnhance.Brightness),
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 - round(256 * abs(s))),
    "auto-contrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "identity": lambda image, _: image,
}


def distort(image: Image.Image, magnitude: int, seed: np.random.SeedSequence) -> Image.Image:
    """The image, in RGB and of the same size, after two operations drawn with replacement.

    ``magnitude`` is M of the paper, 0 to 30; the same ``seed`` gives the same image.
    """
    choose = np.random.default_rng(seed)
    image = image.convert("RGB")
    for name in choose.choice(list(OPERATIONS), OPERATIONS_AN_IMAGE):
        image = OPERATIONS[name](image, choose.choice((-1, 1)) * magnitude / MAGNITUDES)
    return image


@dataclass(frozen=True, slots=True)
class Distorted:
    """Rows with an ``image``, each distorted in its own way in every epoch, whatever was read before."""

    rows: Any
    magnitude: int
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict:
        row, seed = self.rows[position], np.random.SeedSequence([self.seed, self.epoch, position])
        return {**row, "image": distort(row["image"], self.magnitude, seed)}
