"""Whole datasets: splits, fingerprints, and what a report counts, against counts made by hand."""

import dataclasses
import json
import shutil

import pytest

from taskit.data import DataInfo, Report, check, load
from taskit.data.info import ClassCount
from taskit.errors import DataError
from tests.data.conftest import csv_text, image_files, png, write_files, write_zip


@pytest.fixture
def images(tmp_path):
    return write_files(tmp_path / "set", image_files(5))


def test_image_folder(images):
    data = load(images)
    assert (data.info.modality, data.info.task) == ("image", "image-classification")
    assert (data.info.labels, data.info.train_rows, data.info.eval_rows) == (("cat", "dog"), 8, 2)
    assert data.train.column_names == ["image", "label"]
    assert data.train.features["label"].names == ["cat", "dog"]
    assert data.train[0]["image"].size == (8, 8)
    assert sorted(data.evaluation["label"]) == [0, 1]


def test_fingerprint_is_about_content(images, tmp_path):
    first = load(images).info.fingerprint
    moved = shutil.copytree(images, tmp_path / "elsewhere" / "other")
    wrapped = write_zip(tmp_path / "a.zip", {**image_files(5, "set/"), "set/.DS_Store": b"", "set/notes.txt": b"hi"})
    assert load(moved).info.fingerprint == load(wrapped).info.fingerprint == first
    (images / "cat" / "0.png").write_bytes(png(999))
    assert load(images).info.fingerprint != first


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "val"), ("train", "validation"), ("train", "dev")])
def test_given_splits_of_images(names, tmp_path):
    files = {**image_files(4, f"{names[0]}/"), **{k: png(n) for n, k in enumerate(("x", "y"))}}
    files = {k: v for k, v in files.items() if "/" in k}
    files |= {f"{names[1]}/cat/a.png": png(71), f"{names[1]}/dog/b.png": png(72)}
    info = load(write_zip(tmp_path / "set.zip", files)).info
    assert (info.train_rows, info.eval_rows, info.labels) == (8, 2, ("cat", "dog"))


def test_classes_called_like_splits_stay_classes(tmp_path):
    files = {f"{label}/{n}.png": png(10 * i + n) for i, label in enumerate(("train", "plane")) for n in range(3)}
    assert load(write_zip(tmp_path / "set.zip", files)).info.labels == ("plane", "train")


def test_folder_of_tables(tmp_path):
    rows = [{"text": f"held out {n}", "label": ("pos", "neg")[n % 2]} for n in range(4)]
    files = {"sms_train.csv": csv_text(), "sms_test.jsonl": "\n".join(map(json.dumps, rows))}
    data = load(write_files(tmp_path / "set", files))
    assert (data.info.train_rows, data.info.eval_rows) == (10, 4)
    assert all(text.startswith("held out") for text in data.evaluation["text"])


def test_validation_goes_before_test(tmp_path):
    files = {"train.csv": csv_text(10), "val.csv": csv_text(6), "test.csv": csv_text(4)}
    report = load(write_files(tmp_path / "set", files)).report
    assert report.info.eval_rows == 6
    assert any("test split (4 rows)" in warning for warning in report.warnings)


def test_a_test_split_without_labels_is_left_aside(tmp_path):
    files = {"train.csv": csv_text(), "test.csv": "text\nnobody knows\n"}
    report = load(write_files(tmp_path / "set", files)).report
    assert (report.info.train_rows, report.info.eval_rows) == (8, 2)
    assert any("no column 'label'" in warning for warning in report.warnings)


def test_same_seed_same_split(tmp_path):
    write_files(tmp_path, {"data.csv": csv_text(40)})
    first, second, other = (load(tmp_path / "data.csv", seed=seed) for seed in (0, 0, 1))
    assert first.info == second.info
    assert first.train[:] == second.train[:]
    assert first.info.fingerprint != other.info.fingerprint
    assert check(tmp_path / "data.csv") == first.report
    assert load(tmp_path / "data.csv", eval_fraction=0.5).info.eval_rows == 20


def test_broken_image_in_the_middle(images):
    broken = png(3, (64, 64), "JPEG")
    (images / "cat" / "2.png").write_bytes(b"not an image")
    (images / "dog" / "3.jpg").write_bytes(broken[: len(broken) // 2])
    (images / "1.png").write_bytes(png(5))
    report = load(images).report
    assert {one.reason: one.examples for one in report.dropped} == {
        "unreadable image": ("cat/2.png", "dog/3.jpg"),
        "outside a class folder": ("1.png",),
    }
    assert (report.rows, report.unreadable_rows) == (12, 2)


def test_damaged_member_of_a_zip(tmp_path):
    path = write_zip(tmp_path / "set.zip", image_files(5))
    content = path.read_bytes()
    spot = content.index(png(2)[50:70])  # noise does not shrink, so that it stands there as it is
    path.write_bytes(content[:spot] + b"?" * 10 + content[spot + 10 :])
    assert [one.examples for one in load(path).report.dropped] == [("cat/2.png",)]


def test_images_with_too_many_pixels(images, monkeypatch):
    monkeypatch.setattr("taskit.data.images.MAX_PIXELS", 100)
    (images / "cat" / "large.png").write_bytes(png(1, (20, 20)))
    assert [one.examples for one in load(images).report.dropped] == [("cat/large.png",)]


def test_report_by_hand(tmp_path):
    lines = ["aa,x", "aa,x", '"bbbb b",x', "cc c c,x", ",x", "   ,y", "dd,", "ee,y", "ff,y", "gg,lone"]
    train = "\n".join(["text,label", *lines, "hh,only in training", "ii,only in training"])
    write_files(tmp_path / "set", {"train.csv": train, "test.csv": "text,label\naa,x\njj,y\njj,y\n"})
    report = load(tmp_path / "set").report
    assert report.rows == 15
    assert report.classes == (
        ClassCount("only in training", 2, 0),
        ClassCount("x", 4, 1),
        ClassCount("y", 2, 2),
    )
    assert report.imbalance == 2.0
    assert (report.train_duplicates, report.eval_duplicates, report.leakage_rows, report.empty_rows) == (1, 1, 1, 3)
    assert [(one.reason, one.count, one.examples) for one in report.dropped] == [
        ("empty text", 2, ("train.csv line 6", "train.csv line 7")),
        ("empty label", 1, ("train.csv line 8",)),
        ("class with one example", 1, ("train.csv line 11 ('lone')",)),
    ]
    characters, words = report.spreads
    assert (characters.field, characters.unit, characters.minimum, characters.median, characters.maximum) == (
        "text",
        "characters",
        2,
        2,
        6,
    )
    assert (words.minimum, words.maximum) == (1, 3)
    assert any("also stand in the training split" in warning for warning in report.warnings)
    assert any("'only in training'" in warning for warning in report.warnings)


def test_json_round_trip(images):
    report = load(images).report
    assert Report.from_dict(json.loads(json.dumps(dataclasses.asdict(report)))) == report
    assert DataInfo.from_dict(json.loads(json.dumps(dataclasses.asdict(report.info)))) == report.info


def test_messages_end_with_an_answer(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    rows = [[*turns, {"role": "user", "content": "bye"}], turns, turns[:1], [*turns, *turns]]
    write_files(tmp_path, {"data.jsonl": "\n".join(json.dumps({"messages": row}) for row in rows)})
    data = load(tmp_path / "data.jsonl")
    assert data.info.labels == ()
    assert data.report.empty_rows == 1
    assert {len(row["messages"]) for row in [*data.train, *data.evaluation]} <= {2, 4}
    assert all(row["messages"][-1]["role"] == "assistant" for row in [*data.train, *data.evaluation])


def test_generation_needs_two_rows(tmp_path):
    write_files(tmp_path, {"data.jsonl": '{"prompt": "a", "completion": "b"}'})
    with pytest.raises(DataError, match="Only 1 usable row"):
        load(tmp_path / "data.jsonl")
