"""The example dataset."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from taskit.data import load, write_digits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("made") / "inside" / "digits")


def test_digits(folder):
    data = load(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["digits"]
    assert data.info.labels == tuple("0123456789")
    assert data.info.train_rows + data.info.eval_rows == 1797
    assert abs(data.info.eval_rows / 1797 - 0.3) < 0.005
    digits = load_digits()
    number = int(next((folder / "train" / "7").iterdir()).stem)
    assert digits.target[number] == 7
    shown = np.asarray(data.train[0]["image"])
    assert shown.shape == (32, 32)
    rows, columns = np.flatnonzero(shown.max(1)), np.flatnonzero(shown.max(0))
    assert 10 <= rows[-1] - rows[0] < 26
    assert columns[-1] - columns[0] < 26


def test_digits_stand_at_different_places(folder):
    corners = {np.argwhere(np.asarray(row["image"]))[0].tolist()[0] for row in load(folder).train.select(range(40))}
    assert len(corners) > 5


def test_the_same_every_time(folder, tmp_path):
    first, second = folder, write_digits(tmp_path / "b")
    files = sorted(path.relative_to(first) for path in first.rglob("*.png"))
    assert files == sorted(path.relative_to(second) for path in second.rglob("*.png"))
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    stamp = first.stat().st_mtime_ns
    assert write_digits(first).stat().st_mtime_ns == stamp
