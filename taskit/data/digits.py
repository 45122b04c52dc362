"""The example dataset of the demo: scikit-learn's handwritten digits as a folder of images, with no download."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from taskit.data.splitting import split


def write_digits(folder: str | Path) -> Path:
    """Write 1,797 grey images of 8 by 8 pixels as `train|test/DIGIT/NUMBER.png`, 70 to 30, the same every time.

    A folder that is already there is left as it is. Returns the folder.
    """
    from sklearn.datasets import load_digits

    folder = Path(folder)
    if folder.exists():
        return folder
    digits = load_digits()
    train, test = split(digits.target.tolist(), 0.3, seed=0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and renamed at the end, so that an interrupted call leaves no half of it.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch, folder.name)
        for name, positions in (("train", train), ("test", test)):
            for position in positions:
                file = made / name / str(digits.target[position]) / f"{position:04d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                grey = (digits.images[position] * (255 / 16)).astype(np.uint8)  # the source counts from 0 to 16
                Image.fromarray(grey).save(file)
        made.rename(folder)
    return folder
