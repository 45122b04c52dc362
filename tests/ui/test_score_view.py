"""The pictures of an evaluation say what it found, in colours whose numbers can be read."""

import re

import pytest

from taskit.planning.rank_grid import ink_on
from taskit.training.results import Scores
from taskit.ui.heatmap import cividis
from taskit.ui.score_view import MOST_CLASSES, STRONGEST, scores_view
from taskit.ui.theme import STYLE
from tests.ui.test_pictures import well_formed

COLOURS = ("ink", "soft", "accent")
LABELS = ("cat", "<b>dog</b>", "owl")
BEFORE = Scores(0.5, macro_f1=0.4, confusion=((5, 0, 5), (0, 2, 8), (2, 0, 8)))
AFTER = Scores(0.8, macro_f1=0.75, confusion=((9, 1, 0), (3, 7, 0), (0, 2, 8)))


def test_every_count_stands_in_its_cell_and_the_worst_come_first():
    html = well_formed(scores_view(LABELS, BEFORE, AFTER))
    assert re.findall(r'title="(\d+) of 10 rows', html) == ["9", "1", "0", "3", "7", "0", "0", "2", "8"]
    assert "3 of 10 rows of &lt;b&gt;dog&lt;/b&gt; taken for cat" in html
    table = html[html.index("Most frequent mistakes") :]
    assert re.findall(r"<td>(\d+) of 10</td>", table) == ["3", "2", "1"]
    assert "<b>dog" not in html
    assert re.search(r"macro F1</td><td>0.400</td><td>0.750", html)


def test_no_mistake_is_said():
    whole = Scores(1.0, confusion=((5, 0), (0, 5)))
    assert "Every row kept aside was answered correctly" in scores_view(("a", "b"), whole, whole)


def test_many_classes_are_a_list_and_no_matrix():
    count = MOST_CLASSES + 1
    labels = [f"c{n}" for n in range(count)]
    scores = Scores(
        0.0, confusion=tuple(tuple(int(j == (i + 1) % count) for j in range(count)) for i in range(count))
    )
    html = well_formed(scores_view(labels, scores, scores))
    assert "confusion" not in html
    assert html.count(" of 1</td>") == 8


def test_generated_text_has_its_own_scores():
    before, after = (Scores(2.0, perplexity=7.39, exact_match=0.1, rouge_l=r) for r in (0.2, 0.6))
    html = well_formed(scores_view((), before, after))
    assert "ROUGE-L</td><td>0.200</td><td>0.600" in html
    assert "What was taken" not in html


def test_a_run_without_details_shows_none():
    assert scores_view(LABELS, None, None) == ""


def luminance(colour):
    """Relative luminance of #rrggbb (WCAG 2.1)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_numbers_on_every_shade_of_the_plan_reach_contrast_aa():
    for step in range(101):
        shade = cividis(step / 100)
        assert contrast(shade, ink_on(shade)) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_counts_on_every_shade_of_the_confusions_reach_contrast_aa(theme):
    ink, soft, accent = (re.findall(rf"--{name}: (#\w{{6}})", STYLE.read_text())[theme] for name in COLOURS)
    for share in range(STRONGEST + 1):
        parts = (
            round(int(a[i : i + 2], 16) * share / 100 + int(b[i : i + 2], 16) * (1 - share / 100))
            for i in (1, 3, 5)
            for a, b in [(accent, soft)]
        )
        assert contrast("#" + "".join(f"{part:02x}" for part in parts), ink) >= 4.5
