"""Ranking by weights against whole matrices, and what a large zoo leaves out."""

import pytest
import torch

from taskit.zoo import shortlist as room
from taskit.zoo.lora_branch import Branch, linear_shapes
from taskit.zoo.shortlist import shortlist, weight_cosine
from taskit.zoo.zoo import open_zoo
from tests.conftest import BACKBONE, VIT


def branch(rank, seed, scaling=1.0):
    choose = torch.Generator().manual_seed(seed)
    return Branch(torch.randn(rank, 5, generator=choose), torch.randn(4, rank, generator=choose), scaling)


def test_equals_the_cosine_of_the_whole_updates():
    left, right = {"p": branch(2, 0), "q": branch(3, 1, 0.5)}, {"q": branch(1, 2, 2.0), "s": branch(2, 3)}
    whole = [
        torch.cat(
            [(side[n].scaling * side[n].b @ side[n].a).flatten() if n in side else torch.zeros(20) for n in "pqs"]
        )
        for side in (left, right)
    ]
    assert weight_cosine(left, right) == pytest.approx(float(torch.cosine_similarity(*whole, dim=0)), abs=1e-6)
    assert weight_cosine(left, left) == pytest.approx(1)
    assert weight_cosine(left, {}) == 0


def test_the_most_alike_are_kept_and_the_others_say_why(tiny_vit, make_adapter, tmp_path, monkeypatch):
    for seed in range(6):
        make_adapter(tiny_vit, tmp_path / f"{seed}", {VIT[0]: 2}, seed=seed)
    (tmp_path / "2" / "adapter_model.safetensors").write_bytes(b"")
    tasks = open_zoo(tmp_path, BACKBONE).tasks
    tasks = tuple(sorted(tasks, key=lambda task: task.adapter))
    shapes = linear_shapes(tiny_vit)
    tried = room.read_tensors(tasks[-1].folder, room.read_config(tasks[-1].folder), shapes, str)
    monkeypatch.setattr(room, "MOST", 2)
    kept, left_out = shortlist(tasks, tried, shapes, str)
    assert [task.adapter for task in kept][-1] == "5"
    assert len(kept) == 2
    assert {name for name, _ in left_out} == {task.adapter for task in tasks} - {task.adapter for task in kept}
    assert all("less like" in why and "2" in why for _, why in left_out)


def test_a_small_zoo_is_compared_whole_without_being_read():
    assert shortlist(["anything"] * room.MOST, {}, {}, str) == (("anything",) * room.MOST, ())
