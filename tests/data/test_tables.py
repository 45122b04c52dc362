"""All formats say the same; encodings, separators and headers are handled aloud."""

import json

import datasets
import pandas
import pytest

from taskit.data import load
from tests.data.conftest import csv_text, png, write_files

ROWS = [{"text": f"sentence number {n}", "label": ("pos", "neg")[n % 2]} for n in range(10)]


def _write(path):
    text = {
        ".csv": csv_text(),
        ".tsv": csv_text().replace(",", "\t"),
        ".json": json.dumps(ROWS),
        ".jsonl": "\n".join(map(json.dumps, ROWS)),
    }
    if path.suffix == ".parquet":
        pandas.DataFrame(ROWS).to_parquet(path)
    else:
        path.write_text(text[path.suffix])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_formats_agree(suffix, tmp_path):
    data = load(_write(tmp_path / f"data{suffix}"))
    assert data.info.fingerprint == load(_write(tmp_path / "other.csv")).info.fingerprint
    assert (data.info.task, data.info.labels) == ("text-classification", ("neg", "pos"))
    rows = [*data.train, *data.evaluation]
    found = [{"text": row["text"], "label": data.info.labels[row["label"]]} for row in rows]
    assert sorted(found, key=str) == sorted(ROWS, key=str)


def test_json_object_with_data(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps({"version": 1, "data": ROWS}))
    assert load(tmp_path / "data.json").report.rows == 10


def test_stray_space_in_the_header(tmp_path):
    write_files(tmp_path, {"data.csv": csv_text(header=" text ,label ")})
    report = load(tmp_path / "data.csv").report
    assert report.info.columns == (("text", "text"), ("label", "label"))
    assert any("stray spaces" in warning and "' text '" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("encoding", "warned"), [("utf-8", None), ("utf-8-sig", None), ("utf-16", None), ("cp1252", "cp1252")]
)
def test_encodings(encoding, warned, tmp_path):
    content = csv_text().replace("sentence", "phrase élevée")
    (tmp_path / "data.csv").write_bytes(content.encode(encoding))
    data = load(tmp_path / "data.csv")
    assert all("élevée" in text for text in data.train["text"])
    assert [warned in one for one in data.report.warnings] == ([True] if warned else [])


def test_latin_1_where_cp1252_has_holes(tmp_path):
    (tmp_path / "data.csv").write_bytes(csv_text().replace("sentence", "\x81\xe9").encode("latin-1"))
    assert any("latin-1" in warning for warning in load(tmp_path / "data.csv").report.warnings)


def test_semicolons_and_lines_inside_quotes(tmp_path):
    lines = "".join(f'"row {n}, first;\nsecond";{"ab"[n % 2]}\n' for n in range(6))
    write_files(tmp_path, {"data.csv": "text;label\n" + lines})
    assert load(tmp_path / "data.csv").train[0]["text"].endswith(", first;\nsecond")


def test_tsv_with_lone_quotes(tmp_path):
    lines = "".join(f'"quote {n}\t{"ab"[n % 2]}\n' for n in range(6))
    write_files(tmp_path, {"data.tsv": "text\tlabel\n" + lines})
    assert load(tmp_path / "data.tsv").train[0]["text"].startswith('"quote')


def test_numeric_labels_sort_by_value(tmp_path):
    lines = "".join(f"row {n},{(10, 9, 2)[n % 3]}\n" for n in range(12))
    write_files(tmp_path, {"data.csv": "text,label\n" + lines})
    assert load(tmp_path / "data.csv").info.labels == ("2", "9", "10")


def test_json_labels_of_any_kind(tmp_path):
    for name, values, labels in (
        ("int", (0, 1), ("0", "1")),
        ("bool", (True, False), ("False", "True")),
        ("float", (1.0, 2.0), ("1", "2")),
        ("half", (0.5, 1.5), ("0.5", "1.5")),
    ):
        lines = [json.dumps({"text": f"row {n}", "label": values[n % 2]}) for n in range(8)]
        write_files(tmp_path, {f"{name}.jsonl": "\n".join(lines)})
        assert load(tmp_path / f"{name}.jsonl").info.labels == labels


def test_parquet_keeps_class_names_and_images(tmp_path):
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    rows = {"picture": [{"bytes": png(n), "path": None} for n in range(6)], "label": [0, 1, 0, 1, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data.parquet")
    data = load(tmp_path / "data.parquet")
    assert (data.info.task, data.info.labels) == ("image-classification", ("cat", "dog"))
    assert data.info.columns == (("image", "picture"), ("label", "label"))
    assert data.train[0]["image"].size == (8, 8)


def test_paths_inside_a_parquet_are_not_followed(tmp_path):
    write_files(tmp_path, {"secret.png": png(1)})
    cells = [{"bytes": png(n), "path": None} for n in range(6)] + [
        {"bytes": None, "path": str(tmp_path / "secret.png")}
    ]
    frame = pandas.DataFrame({"image": cells, "label": ["a", "b"] * 3 + ["a"]})
    frame.to_parquet(tmp_path / "data.parquet")
    report = load(tmp_path / "data.parquet").report
    assert [(one.reason, one.count) for one in report.dropped] == [("missing image", 1)]
