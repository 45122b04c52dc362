"""Images: which files count as one, which class and split a path names, and whether the bytes decode."""

import io
import warnings
from collections.abc import Sequence
from pathlib import PurePosixPath

from PIL import Image

# Formats that Pillow decodes itself; others (EPS) would start outside programs.
FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm"),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MAX_PIXELS = 89_478_485  # Pillow's own default, at which it starts to warn of a decompression bomb

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}


def split_name(word: str) -> str | None:
    """The split ("train", "validation", "test") that a folder or file name stands for, if any."""
    return next((split for split, names in _SPLITS.items() if word.lower() in names), None)


def is_image(path: PurePosixPath) -> bool:
    """Whether a path ends like an image and is no leftover of an operating system."""
    return path.suffix.lower() in SUFFIXES and not is_leftover(path)


def is_leftover(path: PurePosixPath) -> bool:
    """Whether an operating system or an editor left the file at ``path``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def arrange(paths: Sequence[PurePosixPath]) -> list[tuple[str, str] | None]:
    """The (split, class) that each path names, or None for an image outside every class folder.

    Two layouts: `class/…/file`, all of it "train", and `split/class/…/file`. Folders around them are ignored.
    """
    parts: list[tuple[str, ...]] = [path.parts for path in paths]
    nested = [one for one in parts if len(one) > 1]
    while _wrapped(nested):
        outer = nested[0][0]
        parts = [one[1:] if one[0] == outer and len(one) > 1 else () for one in parts]
        nested = [one for one in parts if len(one) > 1]
    if all(split_name(one[0]) for one in nested):
        return [(split_name(one[0]) or "train", one[1]) if len(one) > 2 else None for one in parts]
    return [("train", one[0]) if len(one) > 1 else None for one in parts]


def _wrapped(nested: Sequence[tuple[str, ...]]) -> bool:
    """Whether one folder holds everything, as in most archives; a folder called `test` is a split, not a wrapper."""
    tops = {one[0] for one in nested}
    return len(tops) == 1 and any(len(one) > 2 for one in nested) and split_name(next(iter(tops))) is None


def image_size(content: bytes) -> tuple[int, int]:
    """Decode an image to the end and return (width, height) in pixels; raises ValueError with the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings on odd metadata; size is judged here
            with Image.open(io.BytesIO(content), formats=tuple(FORMATS)) as image:
                size = image.size
                if size[0] * size[1] > MAX_PIXELS:
                    raise ValueError("image over 89 million pixels")
                image.draft("RGB", (1, 1))  # JPEG: reads all data, but at an eighth of the resolution
                image.load()
    except ValueError as error:
        raise ValueError(str(error) if "pixels" in str(error) else "unreadable image") from error
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError, MemoryError) as error:
        raise ValueError("unreadable image") from error
    return size
