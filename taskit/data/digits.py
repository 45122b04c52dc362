"""The example dataset of the demo: scikit-learn's handwritten digits, each at another size and position.

Centred and all of one size they are too easy: a linear head reads them as well as anything.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from taskit.data.rows import split

TILE = 32  # pixels
SIDES = (18, 27)  # of a digit on its tile, the upper end left out


def write_digits(folder: str | Path) -> Path:
    """Write 1,797 grey images of 32 by 32 pixels as `train|test/DIGIT/NUMBER.png`, 70 to 30, the same every time.

    A folder that is already there is left as it is. Returns the folder.
    """
    from sklearn.datasets import load_digits

    folder = Path(folder)
    if folder.exists():
        return folder
    digits: Any = load_digits()
    train, test = split(digits.target.tolist(), 0.3, seed=0)
    generator = np.random.default_rng(0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written beside the folder and renamed at the end, so that an interrupted call leaves no half of it.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch, folder.name)
        for name, positions in (("train", train), ("test", test)):
            for position in positions:
                file = made / name / str(digits.target[position]) / f"{position:04d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                _place(digits.images[position], generator).save(file)
        made.rename(folder)
    return folder


def _place(strokes: np.ndarray, generator: np.random.Generator) -> Image.Image:
    """Enlarge a digit (8, 8), whose source counts from 0 to 16, and put it somewhere on a dark tile."""
    side = int(generator.integers(*SIDES))
    digit = Image.fromarray((strokes * (255 / 16)).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    corner = generator.integers(0, TILE - side + 1, 2).tolist()
    tile = Image.new("L", (TILE, TILE))
    tile.paste(digit, tuple(corner))
    return tile
