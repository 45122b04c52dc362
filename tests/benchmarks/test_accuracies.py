"""The parts of benchmarks/accuracy.py on a tiny model: no task is its own learned one, and every way trains."""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.nn import functional
from torch.optim import optimizer

from benchmarks.accuracies.suite import GROUPS, suite, zoo_without
from benchmarks.accuracies.ways import BOUNDED, FREE, FULL_RATES, LEAST, RATES, WAYS, Task, Training, bytes_of, cell
from benchmarks.accuracy import Key, chooses, continued, keys, read_cells, scored, settled, unpack
from benchmarks.transferring.agreement import calibrated
from benchmarks.transferring.bench import logits
from benchmarks.transferring.families import Family, families
from taskit.data import load
from tests.world import write_bert, write_topics


@pytest.mark.parametrize("name", GROUPS)
def test_each_suite_has_eight_tasks(name):
    family = suite(families(Path("data"))[name], quick=False)
    assert len(set(family.new)) == 8
    assert len(suite(family, quick=True).new) == 1


def test_a_task_is_never_its_own_learned_one(tmp_path):
    zoo = tmp_path / "zoo"
    for name in ("a", "b", "c"):
        (zoo / name).mkdir(parents=True)
        (zoo / name / "adapter_config.json").write_text("{}")

    def names(most, seed=0):
        folder = tmp_path / f"{most}-{seed}"
        return {path.name for path in zoo_without(zoo, "b", most, seed, folder).iterdir()}

    assert names(None) == {"a", "c"}
    assert names(9) == {"a", "c"}
    assert {frozenset(names(1, seed)) for seed in range(9)} == {frozenset("a"), frozenset("c")}


def test_cells_are_asked_for_once_and_named_apart(tmp_path):
    chosen = argparse.Namespace(ways=WAYS, budgets=(40, 60), variants=("learned-1",))
    family = families(Path("data"))["text"]
    wanted = list(keys(chosen, family, "subj", 0))
    assert len({key.path(tmp_path) for key in wanted}) == len(wanted) == len(BOUNDED) * 2 + len(FREE) + 2


def one(task, way, *tried, share=60):
    fields = ("learning_rate", "validation", "test")
    return {
        "family": "text",
        "task": task,
        "way": way,
        "share": share,
        "tried": [dict(zip(fields, each, strict=True)) for each in tried],
    }


def test_a_rate_is_the_best_on_the_mean_over_the_tasks_that_tried_all():
    rows = [
        one("a", "uniform", (1.0, 0.5, 0.1), (2.0, 0.6, 0.2)),
        one("b", "uniform", (1.0, 0.9, 0.3), (2.0, 0.7, 0.4)),
        one("c", "uniform", (2.0, 1.0, 0.5)),  # at a rate that was settled
        one("a", "eva", (1.0, 0.5, 0.6), (2.0, 0.5, 0.7)),
        one("a", "uniform", (1.0, 0.5, 0.1), (2.0, 0.6, 0.2), share=20),
        {"family": "text", "task": "a", "way": "head", "share": None, "test": 0.8},
    ]
    rates = settled(rows)
    assert rates == {("text", "uniform", 60): 1.0, ("text", "eva", 60): 1.0, ("text", "uniform", 20): 2.0}
    assert [scored(row, rates)["test"] for row in rows] == [0.1, 0.3, 0.5, 0.6, 0.2, 0.8]


def test_rates_are_chosen_with_the_first_seed_at_every_budget():
    chosen = argparse.Namespace(ways=WAYS, budgets=(60, 40), variants=("learned-1",), seeds=(0, 1))
    family = families(Path("data"))["text"]
    found = [key for seed in chosen.seeds for key in keys(chosen, family, "subj", seed) if chooses(chosen, key)]
    assert {(key.seed, key.share, key.variant) for key in found} == {(0, 60, None), (0, 40, None), (0, None, None)}
    assert {key.way for key in found} == set(WAYS)


def test_an_earlier_table_goes_on_where_it_was(tmp_path):
    rows = [one("a", "uniform", (1.0, 0.5, 0.1)) | {"seed": seed, "variant": None} for seed in (0, 1)]
    (tmp_path / "table.json").write_text(json.dumps({"cells": rows}))
    unpack(tmp_path / "none.json", tmp_path)
    assert read_cells(tmp_path) == []
    newer = Key("text", "a", 1, "uniform", 60, None).path(tmp_path)
    newer.parent.mkdir(parents=True)
    newer.write_text('{"newer": true}')
    unpack(tmp_path / "table.json", tmp_path)
    assert read_cells(tmp_path) == [rows[0], {"newer": True}]


def test_a_table_names_all_the_commands_that_it_comes_of(tmp_path):
    first = continued({"command": "a", "seeds": [1]}, tmp_path / "none.json")
    assert first == {"command": ["a"], "seeds": [1]}
    (tmp_path / "table.json").write_text(json.dumps(first))
    assert continued({"command": "a", "seeds": [1]}, tmp_path / "table.json") == first
    again = continued({"command": "b", "seeds": [0, 1]}, tmp_path / "table.json")
    assert again == {"command": ["a", "b"], "seeds": [0, 1]}
    (tmp_path / "table.json").write_text(json.dumps({"command": "a", "seeds": [1]}))
    assert continued({"command": "b", "seeds": [0, 1]}, tmp_path / "table.json") == again


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    data, base = write_topics(folder / "topics.csv", rows=60), write_bert(folder / "bert")
    family = Family("text", str(base), (), ("topics",), 60, 60, epochs=1, max_length=16, batch_size=8)
    return Task(family, "topics", 0, data, data, folder / "no-zoo", folder)


def test_rates_are_chosen_on_the_validation_rows_and_on_spare_ones(tiny):
    validation, chosen = (
        sum(len(batch["labels"]) for batch in some) for some in (tiny.bench.validation, tiny.choosing)
    )
    assert chosen == validation + len(load(tiny.spare, seed=0).evaluation) > validation > 0


@pytest.mark.parametrize(("way", "rates"), [("everywhere", RATES), ("full", FULL_RATES)])
def test_all_rates_are_tried_where_none_is_given(tiny, way, rates):
    tried = cell(tiny, way, None, None, None)["tried"]
    assert [one["learning_rate"] for one in tried] == list(rates)
    assert cell(tiny, way, None, None, rates[1])["tried"] == [tried[1]]


def test_a_way_that_inserts_nothing_compares_no_rates(tiny):
    assert not any(tiny.ranks("uniform", 1))
    assert len(cell(tiny, "uniform", 1, None, None)["tried"]) == 1


@pytest.mark.parametrize("way", [*BOUNDED[2:], "adalora"])
def test_every_way_trains(tiny, way):
    row = cell(tiny, way, None if way == "adalora" else 100, None, 1e-3)
    assert 0 <= row["tried"][0]["test"] <= 1
    assert not optimizer._global_optimizer_post_hooks, "AdaLoRA's own step must not outlive its training"
    if way == "last-blocks-r8":
        assert set(row["ranks"]) == {0, 8}


def test_peaks_are_those_of_the_plan(tiny):
    assert bytes_of(tiny, Training((8,) * len(tiny.bench.names)))["peak_bytes"] == tiny.everywhere.memory.peak_bytes


def test_the_head_alone_is_not_trained(tiny):
    row = cell(tiny, "head", None, None, None)
    assert row["test"] == row["head"]
    assert row["peak_bytes"] < tiny.everywhere.memory.peak_bytes


@pytest.mark.parametrize(
    ("way", "recomputes"),
    [
        ("taskit", True),
        ("taskit-keeping", False),
        ("sensitivity", False),
        ("oracle", False),
        ("uniform-checkpointing", True),
    ],
)
def test_plans_keep_to_the_same_budget(tiny, way, recomputes):
    row = cell(tiny, way, 40, None, 1e-3)
    memory = tiny.everywhere.memory
    limit = memory.no_update_bytes + (memory.full_lora_bytes - memory.no_update_bytes) * 40 // 100
    assert any(row["ranks"])
    assert row["peak_bytes"] <= limit
    assert row["recomputes"] == recomputes


def test_recomputed_blocks_leave_room_for_higher_ranks(tiny):
    found = [sum(tiny.ranks(way, 60)) for way in ("uniform", "uniform-checkpointing")]
    assert found[0] < found[1]


def test_what_is_ablated_is_what_the_test_rows_lose_without_a_module(tiny):
    """Each module's update set to zero in a plain PEFT model, one after the other."""
    importance = tiny.ablated
    truth = np.load(tiny.scratch / "everywhere" / "truth.npz")
    model = PeftModel.from_pretrained(copy.deepcopy(tiny.bench.model), str(tiny.scratch / "everywhere")).eval()
    temperature = calibrated(truth["held_logits"], truth["held_labels"])
    whole, labels = logits(model, tiny.bench.test)
    before = functional.cross_entropy(whole / temperature, labels)
    for name, found in zip(tiny.bench.names, importance, strict=True):
        b = model.get_submodule(f"base_model.model.{name}").lora_B["default"].weight
        kept = b.detach().clone()
        with torch.no_grad():
            b.zero_()
        without, _ = logits(model, tiny.bench.test)
        with torch.no_grad():
            b.copy_(kept)
        lost = float(functional.cross_entropy(without / temperature, labels) - before)
        assert found == pytest.approx(max(lost, LEAST), abs=1e-6)
    assert max(importance) > LEAST
