"""The page of evidence and the figures in README are what the committed JSON gives, and there are no others."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import evidence
from benchmarks.page import accuracy, demo, memory, planning, rank_gain
from benchmarks.page.markdown import percent, points, seconds, table
from benchmarks.page.section import claim_of
from benchmarks.page.svg import bars, lines

ROOT = Path(__file__).parents[2]
MEASURED = re.compile(
    r"\d+(?:[.,]\d+)*\s?(?:%|[KMG]i?B\b|kB\b|ms\b|s\b|h\b|(?:milli)?seconds?\b|minutes?\b|hours?\b|times\b|points?\b|"
    r"per cent\b)"
)
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
PLAIN_FACTS = {  # not measured, and why they may stand in README or docs
    "README.md": {
        "90 %": "what `auto` is defined as",
        "0 %": "an end of the scale of budgets",
        "100 %": "an end of the scale of budgets",
    },
}


def test_page_plots_and_blocks_are_what_the_results_give():
    written = evidence.written()
    assert Path("README.md") in written
    for path, text in written.items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"run python -m benchmarks.evidence for {path}"
    kept = {path.relative_to(ROOT) for path in (ROOT / "docs" / "evidence").glob("*")}
    assert kept == {path for path in written if path.parent == Path("docs", "evidence")}


def test_the_page_needs_neither_torch_nor_data():
    script = (
        "import sys, benchmarks.evidence as e; e.written(); print(*{'torch', 'pandas', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "evidence.md")],
    ids=lambda p: p.name,
)
def test_no_measured_number_is_typed(path):
    prose = CODE.sub("", evidence.BLOCK.sub("", path.read_text(encoding="utf-8")))
    found = {" ".join(match.split()) for match in MEASURED.findall(prose)}
    allowed = set(PLAIN_FACTS.get(path.name, {}))
    assert found == allowed, "quote results in a generated block; list what is no measurement here, with its reason"


def test_measured_numbers_are_recognised():
    prose = "It takes 3.5 s, 12 MiB, 80% and 2 points; `5 s` and rank 8 are none."
    assert MEASURED.findall(CODE.sub("", prose)) == ["3.5 s", "12 MiB", "80%", "2 points"]


def test_every_benchmark_has_its_section():
    scripts = {p.stem for p in (ROOT / "benchmarks").glob("*.py") if "\ndef main()" in p.read_text()}
    assert scripts - {"__main__", "evidence"} == set(evidence.SHOWN)
    page = (ROOT / evidence.PAGE).read_text(encoding="utf-8")
    for name in evidence.SHOWN:
        assert f"\n## {name}\n\n**Claim.** {claim_of(name)}\n" in page


def test_every_committed_result_is_shown_with_its_command():
    for path in evidence.RESULTS.glob("*.json"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        commands = facts["command"] if isinstance(facts["command"], list) else [facts["command"]]
        assert all("/work" not in command and "/tmp" not in command for command in commands), path
        assert path.stem in evidence.SHOWN or any(path.stem in more for more in evidence.JOINED.values())


def test_verdicts_follow_the_figures():
    one = {"task": "t", "seed": 0}
    parametrization = {"to_default": 0.02, "noise": 0.01, "drowned": True, "mean": 0.5}
    found = {"rows": [one], "backbone": "b", "budget": "40%", "setting": {"rows": 8}}
    assert rank_gain.section(found | {"table": [{"form": "ln", "after": parametrization}]}).holds is True
    beaten = rank_gain.section(found | {"table": [{"form": "ln", "after": parametrization | {"drowned": False}}]})
    assert beaten.holds is False
    assert beaten.verdict.startswith("ln beats")
    bytes_ = {"peak_bytes": 9, "budget_bytes": 10, "full_lora_bytes": 11, "ranks": [{"block": 0, "q": 4}]}
    trained = bytes_ | {"before": 0.5, "after": 0.6, "seconds": 3}
    assert demo.section(trained | {"measured_peak_bytes": 10}).holds is True
    assert demo.section(trained | {"measured_peak_bytes": 11}).holds is False
    assert memory.section({}).holds is None
    size = {"survey_seconds": 9.0, "within": 0.8, "pearson": 0.7}
    summary = {"share": 0.019, "growth": 0.01, "usual": size, "double": size}
    summary |= {"epochs_by_full": {"plan": 1.3, "keeping": 0.8}, "share_of_everywhere": 0.03}
    assert planning.section({"tasks": [], "summary": summary | {"holds": True}}).holds is True


def cells(**accuracies):
    base = {"family": "text", "task": "t", "seed": 0, "group": "g", "variant": None, "peak_bytes": None}
    shares = {"everywhere": None}
    return [base | {"way": way, "share": shares.get(way, 60), "test": value} for way, value in accuracies.items()]


@pytest.mark.parametrize(
    ("everywhere", "uniform", "last", "holds"),
    [(0.801, 0.78, 0.79, True), (0.81, 0.78, 0.79, False), (0.801, 0.795, 0.79, False), (0.801, 0.78, 0.805, False)],
)
def test_the_bar_of_accuracy_is_the_issues(everywhere, uniform, last, holds):
    ways = {"taskit": 0.80, "everywhere": everywhere, "uniform": uniform, "last-blocks": last}
    section = accuracy.section({"cells": cells(**ways)})
    assert section.holds is holds
    assert accuracy.section({"cells": cells(taskit=0.8)}).holds is None


def test_accuracy_compares_only_where_both_ways_were_trained():
    both = cells(taskit=0.8, uniform=0.7)
    lonely = [cell | {"task": "other", "test": 0.1} for cell in cells(taskit=0.8)]
    found = accuracy.gap([*both, *lonely], "uniform")
    assert (round(found.mean, 6), found.error, found.pairs) == (0.1, None, 1)
    twice = [cell | {"seed": 1, "test": cell["test"] + 0.02 * (cell["way"] == "taskit")} for cell in both]
    assert str(accuracy.gap([*both, *twice], "uniform")) == "+11.0 ± 1.0"
    assert accuracy.gap(both, "everywhere") is None
    narrow = [cell | {"share": 20, "test": cell["test"] / 2} for cell in both]
    assert str(accuracy.gap([*both, *narrow], "uniform", share=20)) == "+5.0"
    assert accuracy._tight([*both, *narrow]) == ""
    blind = [cell | {"way": "random-checkpointing"} for cell in narrow if cell["way"] == "uniform"]
    told = " At 20 % it is +5.0 against a random importance that recomputes (1 pairs)."
    assert accuracy._tight([*both, *narrow, *blind]) == told


def test_rates_are_compared_on_the_tasks_that_all_ways_have_tried_them_on():
    tried = [{"learning_rate": rate, "validation": rate, "test": 2 * rate} for rate in (0.1, 0.2)]
    some = [cell | {"tried": tried, "ranks": (100, 300)} for cell in cells(taskit=0.2, random=0.2)]
    lonely = some[0] | {"task": "other"}
    others = some[0] | {"way": "full", "tried": [one | {"learning_rate": 7} for one in tried]}
    narrow = [one | {"share": 20} for one in some]
    found = accuracy._rates([*some, lonely, others, *narrow], 60).splitlines()
    assert found[0] == "| way, 60 %, 1 tasks | sum of ranks | own rate | 0.1 | 0.2 |"
    tail = "| 400 | 0.0025 | 10.0, 20.0 | 20.0, 40.0 |"  # 0.05 / sqrt(400)
    assert found[2:] == [f"| taskit {tail}", f"| random {tail}"]
    assert accuracy._rates(cells(taskit=0.2), 60) == accuracy._rates(some, 20) == ""


def test_a_mean_is_over_tasks_and_its_spread_over_seeds_that_have_them_all():
    one = cells(taskit=0.5)[0]
    some = [one, one | {"seed": 1, "test": 0.7}, one | {"task": "u", "test": 0.9}]
    assert accuracy.mean(some, way="taskit") == (pytest.approx(0.75), None)
    assert accuracy.mean([*some, one | {"task": "u", "seed": 1, "test": 0.9}]) == (
        pytest.approx(0.75),
        pytest.approx(0.1 / 2**0.5),
    )


def test_figures_are_written_as_people_read_them():
    assert (percent(0.5), percent(-1e-9), percent(0.00096)) == ("50.0 %", "0.000 %", "0.096 %")
    assert (points(-0.00001), points(0.0123)) == ("+0.0", "+1.2")
    assert (seconds(0.0384), seconds(0.216), seconds(140.9)) == ("38 ms", "0.22 s", "141 s")
    assert table(("a", "b"), [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_plots_hold_every_point_and_name():
    curve = lines("A & B", "x", "y", {"one": [(40, 1.0), (60, 3.0)], "two": [(40, 2.0), (60, 2.0)]})
    assert (curve.count("<circle"), curve.count("<polyline")) == (4, 2)
    assert "A &amp; B" in curve
    first, second = re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', curve)[:2]
    assert float(first) > float(second), "the higher figure lies higher"
    widths = [
        float(w)
        for w in re.findall(r'<rect x="190" y="[\d.]+" width="([\d.]+)"', bars("t", "", {"r": {"a": 1, "b": 4}}))
    ]
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.01)
