"""The pictures say what the plan says, and nothing from outside becomes markup."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from taskit.planning.budget import Budget
from taskit.planning.plan import Saving
from taskit.planning.rank_grid import SHADES
from taskit.planning.recipe import Recipe
from taskit.terminal import show_bytes
from taskit.ui.charts import gain_curve, memory_bar, similarity_bars
from taskit.ui.commands import command, save
from taskit.ui.frontier_view import at_percent, frontier_view
from taskit.ui.heatmap import cividis, heatmap
from taskit.ui.page import Chosen
from taskit.ui.plan_view import effect, plan_view
from tests.ui.world import MIB, make_context

VOID = {"br", "img", "input", "line", "circle", "polyline", "polygon"}


class Balanced(HTMLParser):
    """Fails on a tag that is not closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, _):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, _, __):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def well_formed(html):
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    return html


@pytest.fixture(scope="module")
def made():
    return frontier_view(make_context())


@pytest.fixture(scope="module")
def chosen(made):
    return Chosen(at_percent(60), made.draft(at_percent(60)), rehearsed=False)


def test_the_heatmap_has_a_cell_for_each_place_with_its_rank_and_reason(chosen):
    html = well_formed(heatmap(chosen.plan))
    cells = re.findall(r'<td class="(?:left|right)(?: first)? (on|off)"[^>]*data-tip="([^"]*)">(.*?)</td>', html)
    assert len(cells) == 12
    ranks = [location.rank for location in chosen.plan.locations]
    assert sorted(int(text) for state, _, text in cells if state == "on") == sorted(r for r in ranks if r)
    for location, reason in zip(chosen.plan.locations, chosen.plan.explanation.locations, strict=True):
        found = next(tip for _, tip, _ in cells if tip.startswith(f"{location.name}:"))
        assert reason.reason in found
        assert "From " in found


def test_the_first_block_that_is_kept_is_marked_once_a_role(chosen):
    first = min(location.block for location in chosen.plan.locations if location.rank)
    assert heatmap(chosen.plan).count(" first ") == 4
    assert f"block {first}" in heatmap(chosen.plan) or first == 0


def test_markup_from_outside_stays_text(made, chosen):
    html = well_formed(plan_view(made, chosen))
    assert "<b>digits" not in html
    assert "&lt;b&gt;digits&lt;/b&gt;" in html
    assert "<o>" not in html


def test_colours_are_the_anchors_at_the_anchors_and_grow_brighter():
    assert [cividis(i / 6) for i in range(7)] == list(SHADES)
    light = [
        sum(w * int(cividis(i / 50)[j : j + 2], 16) for w, j in ((0.3, 1), (0.59, 3), (0.11, 5))) for i in range(51)
    ]
    assert light == sorted(light)
    assert cividis(-1) == SHADES[0]
    assert cividis(2) == SHADES[-1]


def test_similarity_says_who_is_used(chosen):
    html = well_formed(similarity_bars(chosen.plan))
    assert html.count("not used") == 1
    assert html.index("+0.050") < html.index("-0.020")


def test_similarity_without_a_zoo_is_designed():
    plan = frontier_view(make_context(similarity=())).draft(at_percent(50))
    assert "No learned task" in similarity_bars(plan)


def test_the_memory_bar_fills_as_far_as_the_peak(chosen):
    html = well_formed(memory_bar(chosen.plan, rehearsed=True))
    assert "Rehearsed peak" in html
    widths = [float(x) for x in re.findall(r'<i class="\w+" style="width:([\d.]+)%"', html)]
    (edge,) = re.findall(r'<b class="budget" style="left:([\d.]+)%"', html)
    assert sum(widths) <= float(edge) + 0.01
    assert sum(widths) == pytest.approx(
        chosen.plan.memory.peak_bytes / (chosen.plan.memory.full_lora_bytes * 1.02) * 100, abs=0.05
    )


def test_a_huge_budget_does_not_squash_the_bar(made):
    plan = made.draft(Budget("80GiB", bytes=80 * 2**30))
    assert f"{show_bytes(plan.budget_bytes)} →" in memory_bar(plan, rehearsed=False)


def test_a_shortfall_is_said(made):
    draft = made.draft(at_percent(0))
    assert "only the head is trained." in plan_view(made, Chosen(at_percent(0), draft, rehearsed=False))
    tight = Budget("1MiB", bytes=MIB)
    assert "the cheapest LoRA takes" in plan_view(made, Chosen(tight, made.draft(tight), rehearsed=False))


def test_what_was_done_to_fit_is_listed_with_its_bytes(made, chosen):
    plan = replace(chosen.plan, savings=(Saving("2 micro-batches <b>", 5 * MIB), Saving("more", -MIB)))
    html = well_formed(plan_view(made, replace(chosen, plan=plan)))
    assert "2 micro-batches &lt;b&gt; <b>−5 MiB</b>" in html
    assert "more <b>+1 MiB</b>" in html


def test_the_curve_passes_through_the_plan(made, chosen):
    html = well_formed(gain_curve(made, chosen.plan))
    x, y = re.search(r'circle cx="([\d.]+)" cy="([\d.]+)"', html).groups()
    line = re.search(r'polyline points="([^"]+)"', html)[1].split()
    assert f"{x},{y}" == line[60]


def test_the_command_names_what_differs_and_no_folder(chosen):
    assert command(chosen).splitlines() == [
        "taskit plan photos.zip --backbone tiny --budget 60% --no-gradient-checkpointing --out plan.json",
        "taskit train plan.json --out run",
    ]
    recipe = Recipe(batch_size=4, gradient_checkpointing=True)
    other = replace(chosen, plan=replace(chosen.plan, training=recipe))
    assert "--batch-size 4 --gradient-checkpointing --out" in command(other)


def test_a_saved_plan_keeps_the_folders_of_this_machine_to_itself(chosen):
    path = save(chosen)
    assert path.name == "plan.json"
    assert "secret" not in path.read_text()
    assert '"photos.zip"' in path.read_text()


def test_the_effect_of_a_lever_is_its_difference(made):
    assert "+0 B" in well_formed(effect(made, made))
