"""The demo's handwritten digits, a few of each."""

from pathlib import Path

from taskit.data import write_digits


def few_digits(folder: Path, per_class: int) -> Path:
    """The digits, no more than ``per_class`` training images of each and a quarter as many for evaluation."""
    write_digits(folder)
    for split, kept in (("train", per_class), ("test", -(-per_class // 4))):
        for label in (folder / split).iterdir():
            for image in sorted(label.iterdir())[kept:]:
                image.unlink()
    return folder
