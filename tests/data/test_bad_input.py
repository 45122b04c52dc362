"""Every bad input is one clear sentence, and nothing is left behind."""

import zipfile
from pathlib import Path

import pytest

from taskit.data import check, load
from taskit.errors import DataError
from tests.data.conftest import csv_text, image_files, png, write_files, write_zip

CSV = "data.csv"
ZIP = "data.zip"
FILES = {
    "empty file": (CSV, b"", ["data.csv", "empty"]),
    "blank file": (CSV, b"\n\n", ["data.csv", "no rows"]),
    "only a header": (CSV, b"text,label\n", ["data.csv", "no rows"]),
    "one class": (CSV, b"text,label\none,a\ntwo,a\nthree,a\n", ["only the class 'a'", "two classes"]),
    "no label column": (CSV, b"text,number\none,1\ntwo,2\nthree,3\n", ["label", "'text', 'number'", "--column"]),
    "no label, one column": (CSV, b"phrase\none\ntwo\nthree\n", ["No label column", "'phrase'"]),
    "two candidates": (CSV, b"text,label,category\none,a,x\ntwo,b,y\n", ["'label', 'category'", "--column label="]),
    "two guesses": (
        CSV,
        b"text,kind,group\n" + b"".join(b"row %d,%d,%d\n" % (n, n % 2, n % 3) for n in range(12)),
        ["'kind', 'group'", "--column label="],
    ),
    "empty label column": (CSV, b"text,label\none,\ntwo,\n", ["'label'", "empty in every row"]),
    "empty text column": (CSV, b"text,label\n,a\n,b\n,a\n", ["'text'", "empty in every row"]),
    "classes of one": (CSV, b"text,label\none,a\ntwo,b\nthree,c\n", ["two classes", "one example", "line 2"]),
    "ragged, long": (CSV, b"text,label\none,a\ntwo,b,c\n", ["data.csv, line 3", "3 fields", "2"]),
    "ragged, short": (CSV, b"text,label\none,a\ntwo\n", ["data.csv, line 3", "1 field"]),
    "open quote": (CSV, b'text,label\none,a\n"two,b\n', ["data.csv, line 3", "quotes"]),
    "same name twice": (CSV, b"text,label,label\none,a,b\n", ["more than one column", "'label'"]),
    "same name after stripping": (CSV, b"text,label, label\none,a,b\n", ["more than one column", "'label'"]),
    "no header": (
        CSV,
        b"".join(b"words of row %d,%s\n" % (n, (b"good", b"bad")[n % 2]) for n in range(9)),
        ["first line", "column names"],
    ),
    "regression": (CSV, b"text,label\n" + b"".join(b"row %d,%d.5\n" % (n, n) for n in range(30)), ["regression"]),
    "image names": (
        CSV,
        b"image,label\na.png,a\nb.png,b\nc.png,a\nd.png,b\n",
        ["image files", "one folder per class"],
    ),
    "binary": (CSV, b"\x89PNG\0\0\0", ["data.csv", "not a text file"]),
    "broken json": ("data.json", b'[{"text": "a",\n "label": }]', ["data.json line 2", "JSON"]),
    "json of numbers": ("data.json", b"[1, 2]", ["row 1", "object"]),
    "json without rows": ("data.json", b'{"rows": 3}', ["data.json", "list"]),
    "broken jsonl": ("data.jsonl", b'{"text": "a", "label": 1}\n\n{"text": "b"\n', ["data.jsonl line 3", "JSON"]),
    "deep jsonl": ("data.jsonl", b"[" * 200_000, ["data.jsonl line 1", "nested"]),
    "several labels": ("data.jsonl", b'{"text": "a", "label": ["x", "y"]}\n' * 3, ["'label'", "one label per row"]),
    "no parquet": ("data.parquet", b"PAR1 no", ["data.parquet", "Parquet"]),
    "unknown type": ("data.xlsx", b"x", ["data.xlsx", ".csv", ".parquet"]),
    "no zip": (ZIP, b"plain words", ["data.zip", "not a zip"]),
}
ZIPS = {
    "climbs out": ({**image_files(), "../evil.png": png(1)}, ["'../evil.png'", "outside"]),
    "climbs out, backslash": ({**image_files(), "a\\..\\..\\evil.png": png(1)}, ["outside"]),
    "absolute": ({**image_files(), "/etc/evil.png": png(1)}, ["'/etc/evil.png'", "outside"]),
    "drive": ({**image_files(), "C:/evil.png": png(1)}, ["outside"]),
    "bomb of many": ({f"cat/{n}.png": bytes(10**6) for n in range(20)}, ["data.zip", "100 times"]),
    "no image": ({"readme.txt": b"words"}, ["data.zip", "no image"]),
    "only leftovers": ({"__MACOSX/cat/._1.png": png(1), "cat/.2.png": png(2)}, ["no image"]),
    "nested": ({**image_files(), "more.zip": b"PK"}, ["another archive", "more.zip"]),
    "no class folder": ({"1.png": png(1), "2.png": png(2)}, ["class folder"]),
    "splits without classes": ({"train/1.png": png(1), "test/2.png": png(2)}, ["class folder"]),
    "only test": (image_files(prefix="test/"), ["no training split", "test"]),
    "all broken": ({"cat/1.png": b"x", "dog/1.png": b"y"}, ["two classes", "unreadable image", "cat/1.png"]),
}
FOLDERS = {
    "nothing usable": ({"notes.txt": "words"}, ["images", "train.csv"]),
    "no files": ({}, ["images", "train.csv"]),
    "no train file": ({"test.csv": csv_text()}, ["no training split"]),
    "two train files": ({"train.csv": csv_text(), "train.tsv": "a"}, ["two train files", "train.tsv"]),
    "labels only in test": ({"train.csv": "text\none\ntwo\n", "test.csv": csv_text()}, ["only in the test split"]),
    "label values only in test": (
        {"train.csv": "text,label\none,\ntwo,\n", "test.csv": csv_text()},
        ["only in the test split"],
    ),
    "a class only in test": (
        {"train.csv": csv_text(), "test.csv": "text,label\none,pos\ntwo,odd\nthree,odd\n"},
        ["'odd'", "only in the evaluation split"],
    ),
}


def _refused(source, words, snapshot, **options):
    before = snapshot()
    for read in (load, check):
        with pytest.raises(DataError) as caught:
            read(source, **options)
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert "\n" not in message
        assert message.endswith(".")
    assert snapshot() == before


@pytest.mark.parametrize("case", FILES)
def test_files(case, tmp_path, snapshot):
    name, content, words = FILES[case]
    write_files(tmp_path, {name: content})
    _refused(tmp_path / name, words, snapshot)


@pytest.mark.parametrize("case", ZIPS)
def test_zips(case, tmp_path, snapshot):
    files, words = ZIPS[case]
    _refused(write_zip(tmp_path / ZIP, files), words, snapshot)


@pytest.mark.parametrize("case", FOLDERS)
def test_folders(case, tmp_path, snapshot):
    files, words = FOLDERS[case]
    folder = tmp_path / "set"
    folder.mkdir()
    _refused(write_files(folder, files), words, snapshot)


def test_missing_file(tmp_path, snapshot):
    _refused(tmp_path / "none.csv", ["none.csv", "does not exist"], snapshot)


def test_symbolic_link_in_a_zip(tmp_path, snapshot):
    path = write_zip(tmp_path / ZIP, image_files())
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    _refused(path, ["symbolic link", "cat/link.png"], snapshot)


def test_too_many_members(tmp_path, snapshot, monkeypatch):
    monkeypatch.setattr("taskit.data.archives.MAX_MEMBERS", 3)
    _refused(write_zip(tmp_path / ZIP, image_files()), ["8 files", "over 3"], snapshot)


def test_too_large_in_all(tmp_path, snapshot, monkeypatch):
    monkeypatch.setattr("taskit.data.archives.MAX_TOTAL_BYTES", 100)
    _refused(write_zip(tmp_path / ZIP, image_files()), ["4 GiB"], snapshot)


def test_a_bomb_is_refused_before_it_is_expanded(tmp_path, snapshot, monkeypatch):
    path = write_zip(tmp_path / ZIP, {"cat/zeros.png": bytes(200 * 10**6)})
    assert path.stat().st_size < 200 * 1024
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("a member was opened"))
    _refused(path, ["data.zip", "64 MiB"], snapshot)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": "nope"}, ["'nope'", "'text', 'label'"]),
        ({"colour": "text"}, ["'colour'", "image, text"]),
        ({"label": "label", "text": "label"}, ["two roles"]),
        ({"label": "label", "prompt": "text"}, ["one task"]),
        ({"prompt": "text"}, ["Prompt and completion"]),
        ({"image": "text"}, ["'text'", "image"]),
    ],
)
def test_columns_named_wrongly(columns, words, tmp_path, snapshot):
    write_files(tmp_path, {CSV: csv_text()})
    _refused(tmp_path / CSV, words, snapshot, columns=columns)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2])
def test_evaluation_share(fraction, tmp_path):
    write_files(tmp_path, {CSV: csv_text()})
    with pytest.raises(DataError, match="between 0 and 1"):
        load(tmp_path / CSV, eval_fraction=fraction)


def test_a_source_can_be_text_or_path(tmp_path):
    write_files(tmp_path, {CSV: csv_text()})
    assert load(str(tmp_path / CSV)).info == load(Path(tmp_path / CSV)).info
