"""Rows that the benchmarks draw of a dataset: what may choose something is neither trained on nor tested on."""

import zipfile

import pandas
import pytest

from benchmarks.transferring.families import draw

ROWS = (8, 6)


def contents(folder, part):
    """What was drawn as ``part``: texts of a table, or names of images."""
    table = folder / f"{part}.csv"
    return (
        set(pandas.read_csv(table)["text"]) if table.exists() else {path.name for path in folder.glob(f"{part}/*/*")}
    )


@pytest.fixture(params=["table", "images"])
def data(request, tmp_path):
    if request.param == "table":
        for part, count in (("train", 20), ("test", 12)):
            rows = {"text": [f"{part} {i}" for i in range(count)], "label": [i % 2 for i in range(count)]}
            pandas.DataFrame(rows).to_csv(tmp_path / f"task_{part}.csv", index=False)
        return tmp_path
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as images:
        for part, count in (("train", 20), ("test", 12)):
            for i in range(count):
                images.writestr(f"task/{part}/{i % 2}/{part} {i}.png", b"")
    return tmp_path


def test_spare_rows_are_training_rows_that_were_not_drawn(data, tmp_path):
    usual = draw(data, "task", ROWS, 3, tmp_path / "usual")
    spare = draw(data, "task", ROWS, 3, tmp_path / "spare", spare=True)
    assert contents(usual, "train") == contents(spare, "train")
    assert [len(contents(folder, part)) for folder in (usual, spare) for part in ("train", "test")] == [8, 6, 8, 6]
    assert all(name.startswith("test") for name in contents(usual, "test"))
    assert all(name.startswith("train") for name in contents(spare, "test"))
    assert not contents(spare, "test") & contents(spare, "train")


def test_test_rows_are_the_same_for_every_seed(data, tmp_path):
    one, two = (draw(data, "task", ROWS, seed, tmp_path / str(seed)) for seed in (0, 1))
    assert contents(one, "test") == contents(two, "test")
    assert contents(one, "train") != contents(two, "train")
