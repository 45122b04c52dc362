"""Benchmarks are run by hand: nothing else would notice a renamed import, or one that is unlike the others."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.__main__ import SCRIPTS

ROOT = Path(__file__).parents[2]
MODULES = sorted(path.relative_to(ROOT).with_suffix("") for path in (ROOT / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_benchmark_can_be_imported(module):
    imported = importlib.import_module(".".join(module.parts))
    assert imported.__doc__, "say in its first line what it claims"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_benchmark_states_its_claim_and_takes_the_common_options(script, monkeypatch, capsys):
    module = importlib.import_module(f"benchmarks.{script.name}")
    assert module.__doc__.startswith("Claim: ")
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit):
        module.main()
    told = capsys.readouterr().out
    asked = {"--out": True, "--data": script.data != "none", "--work": script.work, "--weights": script.weights}
    asked |= dict.fromkeys(("--seeds", "--quick"), script.name != "demo")
    assert {option: f"{option} " in told.replace("]", " ") for option in asked} == asked


def test_make_benchmarks_knows_every_script():
    mains = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef main()" in path.read_text()}
    assert {script.name for script in SCRIPTS} == mains - {"__main__", "evidence"}


def results(monkeypatch, out, *words, **setting):
    parser = common.options("some", "Claim: one.", quick="less", data="rows", seeds=(0,))
    monkeypatch.setattr(sys, "argv", ["some", "--out", str(out), *words])
    return common.Results(parser, parser.parse_args(), **setting)


def test_a_stopped_benchmark_goes_on_where_it_was(tmp_path, monkeypatch):
    out, measured = tmp_path / "deep" / "some.json", []

    def measure(task, seed):
        if (task, seed) == ("b", 0) and not measured.count("stopped"):
            measured.append("stopped")
            raise KeyboardInterrupt
        measured.append((task, seed))
        return {"value": len(task) + seed}

    keys = [{"task": task, "seed": 0} for task in "abc"]
    with pytest.raises(KeyboardInterrupt):
        results(monkeypatch, out, rows=8).rows("rows", keys, measure)
    again = results(monkeypatch, out, "--seeds", "1", rows=8)
    assert [row["task"] for row in again.rows("rows", keys, measure)] == ["a", "b", "c"]
    assert measured == [("a", 0), "stopped", ("b", 0), ("c", 0)]
    assert again.part("whole", lambda: {"n": 1}) == again.part("whole", lambda: {"n": 2}) == {"n": 1}
    kept = json.loads(out.read_text())
    assert kept["seeds"] == [0, 1]
    assert kept["rows"][2] == {"task": "c", "seed": 0, "value": 1}
    assert kept["versions"]["torch"]
    assert "cores" in kept["machine"]


def test_results_of_another_setting_are_not_joined(tmp_path, monkeypatch):
    out = tmp_path / "some.json"
    results(monkeypatch, out, rows=8).save()
    before = out.read_bytes()
    with pytest.raises(SystemExit, match=r"another setting; give another file with --out\.$"):
        results(monkeypatch, out, rows=9)
    assert out.read_bytes() == before


@pytest.mark.parametrize("words", [("--data", "{}"), ("--data={}",)])
def test_a_command_names_no_place_of_this_machine(tmp_path, monkeypatch, words):
    given = [word.format(tmp_path) for word in words]
    found = results(monkeypatch, tmp_path / "some.json", *given, "--quick").found
    assert found["command"] == f"python -m benchmarks.some --out FILE {' '.join(words).format('FOLDER')} --quick"
    assert str(tmp_path) not in json.dumps(found)


def test_a_bar_that_fails_anywhere_is_the_status(tmp_path, monkeypatch):
    found = results(monkeypatch, tmp_path / "some.json")
    found.put(parts=[{"holds": True}, {"deep": {"holds": True}}])
    with pytest.raises(SystemExit) as ended:
        found.end()
    assert ended.value.code == 0
    found.put(more={"rows": [{"holds": False}]})
    with pytest.raises(SystemExit) as ended:
        found.end()
    assert ended.value.code == 1
