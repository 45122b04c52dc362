"""The command line as a person meets it: verbs, exit codes, one sentence for every mistake."""

import json
import subprocess
import sys

import pytest

from taskit.cli.main import main
from taskit.data import write_digits
from tests.data.conftest import csv_text, image_files, png, write_zip
from tests.world import write_bert, write_topics


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_bert(folder / "bert")
    write_topics(folder / "topics.csv")
    return folder


def taskit(capsys, *argv):
    """(exit status, stdout, stderr) of one command."""
    status = main([str(word) for word in argv])
    return status, *capsys.readouterr()


def plan_words(world, data="topics.csv", budget="60%", out="plan.json"):
    return ["plan", world / data, "--backbone", world / "bert", "--budget", budget, "--out", world / out]


def test_the_road_from_data_to_prediction(world, capsys):
    status, out, _ = taskit(capsys, "check", world / "topics.csv")
    assert status == 0
    assert "animals" in out
    status, out, err = taskit(capsys, *plan_words(world), "--epochs", "1", "--batch-size", "8")
    assert status == 0
    assert "Predicted peak" in out
    assert "taskit train" in err
    status, out, _ = taskit(capsys, "train", world / "plan.json", "--out", world / "run", "--json")
    assert status == 0
    assert json.loads(out)["metric"] == "accuracy"
    status, out, _ = taskit(capsys, "evaluate", world / "run", "--json")
    assert status == 0
    assert json.loads(out)["rows"] == 24
    status, out, _ = taskit(capsys, "evaluate", world / "run", world / "topics.csv", "--json")
    assert json.loads(out)["rows"] == 120
    status, out, _ = taskit(capsys, "predict", world / "run", "a cat", "a blue", "--json")
    assert [p["input"] for p in json.loads(out)] == ["a cat", "a blue"]


def test_json_on_stdout_is_nothing_but_json(world, capsys):
    _, out, _ = taskit(capsys, *plan_words(world, out="again.json"), "--json")
    assert json.loads(out) == json.loads((world / "again.json").read_text())


def test_a_constrained_plan_is_explained(world, capsys):
    flags = [
        "--ranks",
        "2,4",
        "--common-rank",
        "--exclude",
        "*.value",
        "--last-blocks",
        "2",
        "--max-parameters",
        "9000",
    ]
    status, out, _ = taskit(capsys, *plan_words(world, out="wished.json"), *flags, "--explain")
    made = json.loads((world / "wished.json").read_text())
    assert status == 0
    assert "memory costs" in out
    assert len({location["rank"] for location in made["locations"]} - {0}) == 1
    assert made["constraints"]["exclude"] == ["*.value"]
    assert [one["name"] for one in made["explanation"]["locations"]] == [one["name"] for one in made["locations"]]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--ranks", "4,x"], "4,x"),
        (["--ranks", "0"], "rank set holds 0"),
        (["--exclude", "nothing*"], "nothing*"),
        (["--include", "*.value", "--exclude", "*.value"], "drop one of the two"),
        (["--gain", "cube"], "cube"),
    ],
)
def test_bad_constraints(flags, says, world, capsys):
    status, _, err = taskit(capsys, *plan_words(world, out="never.json"), *flags)
    assert status == 1
    assert says in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith(".")
    assert not (world / "never.json").exists()


def test_zoo_lists_what_is_bundled(capsys):
    status, out, _ = taskit(capsys, "zoo", "--backbone", "vit-mini-tiny32", "--json")
    tasks = json.loads(out)["tasks"]
    assert status == 0
    assert len(tasks) >= 6
    assert all(task["value"] >= task["head_alone"] for task in tasks)


@pytest.mark.parametrize("argv", [[], ["plan"], ["fly"], ["plan", "x.csv", "--budget", "60%"]])
def test_wrong_usage_is_two(argv):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2


def zipped(path, files):
    return write_zip(path, files).name


def bomb(path):
    return zipped(path, {"a/zeros.png": b"\0" * 200 * 2**20})


def labels_only_in_test(folder):
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\n" + "".join(f"line {n},\n" for n in range(8)))
    (folder / "test.csv").write_text(csv_text(8))
    return folder.name


BAD_DATA = {
    "missing": (lambda _: "nowhere.csv", "nowhere.csv"),
    "empty": (lambda d: written(d / "empty.csv", ""), "empty"),
    "one class": (lambda d: written(d / "one.csv", "text,label\na b,x\nc d,x\ne f,x\n"), "class"),
    "no label": (lambda d: written(d / "none.csv", "words,other\na b c,d e f\ng h i,j k l\nm n,o p q\n"), "label"),
    "two labels": (
        lambda d: written(
            d / "two.csv", "text,label,category\n" + "".join(f"t {n},{n % 2},{n % 3}\n" for n in range(12))
        ),
        "--column",
    ),
    "labels only in test": (lambda d: labels_only_in_test(d / "split"), "label"),
    "all missing": (lambda d: written(d / "miss.csv", "text,label\n,a\n,b\n,a\n,b\n"), "text"),
    "no zip": (lambda d: written(d / "fake.zip", "this is no archive"), "zip"),
    "climbing zip": (lambda d: zipped(d / "climb.zip", {"../a/1.png": png(1), "b/2.png": png(2)}), r"\.\./"),
    "bomb": (lambda d: bomb(d / "bomb.zip"), "MiB"),
    "zip without images": (lambda d: zipped(d / "bare.zip", {"a/readme.txt": b"hello"}), "image"),
    "broken line": (
        lambda d: written(
            d / "broken.jsonl", '{"text": "a", "label": 1}\n{"text": "b", \n{"text": "c", "label": 0}\n'
        ),
        "line 2",
    ),
}


def written(path, text):
    path.write_text(text)
    return path.name


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_sentence_and_leaves_nothing(case, world, tmp_path, capsys, monkeypatch):
    make, says = BAD_DATA[case]
    monkeypatch.chdir(tmp_path)
    name = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    status, out, err = taskit(
        capsys, "plan", name, "--backbone", world / "bert", "--budget", "60%", "--out", tmp_path / "plan.json"
    )
    sentence = err.strip().splitlines()[-1]
    assert (status, out) == (1, "")
    assert sentence.startswith("taskit: ")
    assert sentence.endswith(".")
    assert says.replace("\\", "") in sentence
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("space.csv", csv_text(20, header="text, label ")),
        ("latin.csv", csv_text(20).replace("sentence", "phräse")),
        ("rare.csv", csv_text(20) + "lonely row,rare\n"),
    ],
)
def test_flawed_data_is_read_with_a_warning(name, text, tmp_path, capsys):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    status, out, _ = taskit(capsys, "check", tmp_path / name, "--json")
    report = json.loads(out)
    assert status == 0
    assert report["warnings"] or report["dropped"]


def test_a_broken_image_is_dropped_by_name(tmp_path, capsys):
    files = image_files(4) | {"cat/9.png": png(5)[:40]}
    write_zip(tmp_path / "pets.zip", files)
    status, out, _ = taskit(capsys, "check", tmp_path / "pets.zip", "--json")
    (dropped,) = json.loads(out)["dropped"]
    assert status == 0
    assert dropped["count"] == 1
    assert "cat/9.png" in dropped["examples"][0]


@pytest.mark.parametrize(
    ("budget", "says"),
    [("0", "0"), ("1KiB", "short"), ("1TiB", "more than"), ("60", "no unit"), ("abc", "not understood")],
)
def test_bad_budgets(budget, says, world, capsys):
    status, _, err = taskit(capsys, *plan_words(world, budget=budget, out="never.json"))
    assert status == 1
    assert says in err.splitlines()[-1]
    assert not (world / "never.json").exists()


@pytest.mark.parametrize(("backbone", "says"), [("no-such-thing", "no-such-thing"), ("vit-mini-tiny32", "image")])
def test_bad_backbones(backbone, says, world, capsys):
    status, _, err = taskit(
        capsys, "plan", world / "topics.csv", "--backbone", backbone, "--budget", "60%", "--out", world / "never.json"
    )
    assert status == 1
    assert says in err.splitlines()[-1]


def test_images_for_a_text_model(world, tmp_path, capsys):
    digits = write_digits(tmp_path / "digits")
    status, _, err = taskit(
        capsys, "plan", digits, "--backbone", world / "bert", "--budget", "60%", "--out", tmp_path / "plan.json"
    )
    assert status == 1
    assert "image" in err.splitlines()[-1]


def test_a_push_of_nothing_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    status, out, err = taskit(capsys, "push", tmp_path, "me/it")
    assert (status, out) == (1, "")
    assert "folder of a TaskIT run" in err.splitlines()[-1]


def test_ctrl_c_is_130(world, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("taskit.planning.planner.make_plan", interrupted)
    assert taskit(capsys, *plan_words(world))[0] == 130


def test_debug_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("TASKIT_DEBUG", "1")
    assert "Traceback" in taskit(capsys, "check", "nowhere.csv")[2]


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "taskit", "check", "nowhere.csv"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("taskit: ")
