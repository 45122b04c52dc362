"""Images with prompts and captions: from zips and folders whose table names them, and all that can be wrong there."""

import io
import json
import zipfile

import pytest

from taskit.data import check, load
from taskit.errors import DataError
from tests.visual import picture, write_questions


def png(colour="red", size=(8, 8)):
    stream = io.BytesIO()
    picture(colour, size).save(stream, "PNG")
    return stream.getvalue()


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def captions(names, header="file_name,caption"):
    return header + "\n" + "\n".join(f"{name},a picture called {n}" for n, name in enumerate(names))


def test_a_zip_of_questions_about_images(tmp_path):
    data = load(write_questions(tmp_path / "questions.zip", rows=10))
    assert (data.info.task, data.info.modality) == ("image-text-to-text", "image-text")
    assert data.info.columns == (("image", "file"), ("prompt", "question"), ("completion", "answer"))
    assert (data.info.train_rows, data.info.eval_rows, data.info.labels) == (8, 2, ())
    assert data.train[0]["image"].size == (20, 20)
    assert {(one.field, one.unit) for one in data.report.spreads} == {
        ("image", "pixels wide"),
        ("image", "pixels high"),
        *((role, unit) for role in ("prompt", "completion") for unit in ("characters", "words")),
    }


def test_a_folder_of_captions_has_no_prompt(tmp_path):
    for n in range(4):
        picture("blue").save(tmp_path / f"{n}.png")
    (tmp_path / "metadata.csv").write_text(captions(f"{n}.png" for n in range(4)))
    assert load(tmp_path).info.columns == (("image", "file_name"), ("completion", "caption"))


def test_names_count_from_the_table_or_from_the_top_and_from_a_windows_program(tmp_path):
    names = ["pictures\\0.png", "./pictures/1.png", "all/pictures/2.png"]
    images = {f"all/pictures/{n}.png": png() for n in range(3)}
    data = load(write_zip(tmp_path / "a.zip", {**images, "all/captions.csv": captions(names)}))
    assert data.info.train_rows + data.info.eval_rows == 3


def test_missing_and_broken_images_are_named_with_their_row(tmp_path):
    members = {"0.png": png(), "1.png": png("blue"), "2.png": b"no image", "3.png": png()[:45]}
    table = captions(["0.png", "1.png", "2.png", "3.png", "gone.png", "../../etc/passwd.png"])
    report = check(write_zip(tmp_path / "a.zip", {**members, "c.csv": table}))
    dropped = {one.reason: one.examples for one in report.dropped}
    assert dropped == {
        "unreadable image": ("c.csv line 4", "c.csv line 5"),
        "missing image": ("c.csv line 6", "c.csv line 7"),
    }
    assert (report.rows, report.unreadable_rows) == (6, 4)


def test_splits_are_told_by_the_names_of_the_tables(tmp_path):
    members = {f"{n}.png": png() for n in range(4)}
    members["train.csv"] = captions(["0.png", "1.png", "2.png"])
    members["captions_test.csv"] = captions(["3.png"])
    info = load(write_zip(tmp_path / "a.zip", members)).info
    assert (info.train_rows, info.eval_rows) == (3, 1)


def test_a_table_with_labels_beside_names_is_classification(tmp_path):
    rows = "".join(f"{n}.png,{'cat' if n % 2 else 'dog'}\n" for n in range(6))
    members = {f"{n}.png": png() for n in range(6)} | {"labels.csv": "file,label\n" + rows}
    info = load(write_zip(tmp_path / "a.zip", members)).info
    assert (info.task, info.labels) == ("image-classification", ("cat", "dog"))


def test_class_folders_win_over_a_table_that_names_no_image(tmp_path):
    members = {f"{label}/{n}.png": png() for label in ("cat", "dog") for n in range(3)}
    info = load(write_zip(tmp_path / "a.zip", {**members, "notes.csv": "a,b\n1,2\n", "broken.csv": "a,b\n1\n"})).info
    assert (info.task, info.train_rows + info.eval_rows) == ("image-classification", 6)


def test_the_user_names_the_columns(tmp_path):
    rows = "".join(f"{n}.png,{n}.png,why {n},because {n}\n" for n in range(4))
    members = {f"{n}.png": png() for n in range(4)} | {"t.csv": "before,after,q,a\n" + rows}
    path = write_zip(tmp_path / "a.zip", members)
    with pytest.raises(DataError, match=r"'before', 'after' all hold images.*--column image=NAME\.$"):
        load(path)
    info = load(path, columns={"image": "after", "prompt": "q", "completion": "a"}).info
    assert info.columns == (("image", "after"), ("prompt", "q"), ("completion", "a"))
    assert load(path, columns={"image": "after", "completion": "a"}).info.columns == info.columns[::2]
    with pytest.raises(DataError, match=r"--column completion=NAME among .*\.$"):
        load(path, columns={"image": "after", "prompt": "q"})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"c.csv": captions(["x.png", "y.png"])}, r"None of the images that c\.csv names .*'x\.png'.*\.$"),
        ({"c.csv": "file_name,caption\n0.png,one,two\n"}, r"c\.csv, line 2: 3 fields.*\.$"),
        ({"c.jsonl": '{"file_name": "0.png", "caption": '}, r"c\.jsonl line 1 is not valid JSON.*\.$"),
        ({"c.csv": ""}, r"c\.csv is empty.*\.$"),
        ({"a.csv": captions(["0.png"]), "b.csv": captions(["0.png"])}, r"several tables that name images.*\.$"),
        ({"train.csv": captions(["0.png"]), "x_train.csv": captions(["0.png"])}, r"two train files.*\.$"),
        ({"c.csv": captions(["0.png"])}, r"Only 1 usable rows.*\.$"),
        ({"c.csv": captions(["0.png"]), "more.zip": b"PK"}, r"another archive, 'more\.zip'.*\.$"),
        ({"c.csv": captions(["0.png"]), "../c.csv": "a"}, r"points outside the archive.*\.$"),
        ({"c.csv": captions(["0.png"] * 3, "file_name,label")}, r"two usable examples.*\.$"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(tmp_path, table, words):
    with pytest.raises(DataError, match=words):
        load(write_zip(tmp_path / "a.zip", {"0.png": png(), **table}))


def test_a_lone_table_that_names_images_says_what_to_do(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text(captions(["0.png", "1.png"]).replace("caption", "label").replace("a picture called ", "c"))
    with pytest.raises(DataError, match=r"names image files: give a folder or zip with them beside this table.*\.$"):
        load(path)


def test_equal_content_has_one_fingerprint_however_it_is_packed(tmp_path):
    rows = [{"image": f"{n}.png", "answer": f"number {n}"} for n in range(4)]
    images = {f"{n}.png": png() for n in range(4)}
    lines = "\n".join(map(json.dumps, rows))
    packed = load(write_zip(tmp_path / "a.zip", {**images, "t.jsonl": lines}))
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name, content in images.items():
        (folder / "deep" / name).write_bytes(content)
    (folder / "deep" / "t.json").write_text(json.dumps(rows))
    assert load(folder).info.fingerprint == packed.info.fingerprint
