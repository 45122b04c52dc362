"""Small datasets made on the spot: nothing here needs the network or files from elsewhere."""

import io
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

datasets.disable_progress_bars()


def png(seed: int, size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    """An image of noise, told apart by its seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def image_files(rows: int = 4, prefix: str = "") -> dict[str, bytes]:
    """Two classes of images by their path."""
    return {
        f"{prefix}{label}/{n}.png": png(100 * seed + n)
        for seed, label in enumerate(("cat", "dog"))
        for n in range(rows)
    }


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_files(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def csv_text(rows: int = 10, header: str = "text,label") -> str:
    """Distinct sentences of two alternating classes."""
    return header + "\n" + "".join(f"sentence number {n},{('pos', 'neg')[n % 2]}\n" for n in range(rows))


@pytest.fixture
def snapshot(tmp_path):
    """A function that lists everything under tmp_path, to see that nothing was left behind."""
    return lambda: sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
