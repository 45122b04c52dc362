import json

import numpy as np
import pytest

from taskit.errors import PlanError
from taskit.memory.profile import MemoryProfile, Storage
from tests.profiles import hand_profile, make_profile, random_profile
from tests.reference import union_bytes


def test_hand_example_needs_4_10_and_12_bytes():
    profile = hand_profile()
    assert [profile.bytes(ranks) for ranks in ((0, 0), (0, 1), (1, 0), (1, 1))] == [0, 4, 10, 12]


def test_breakdown_adds_up_and_equals_the_literal_union():
    rng = np.random.default_rng(0)
    for _ in range(200):
        profile = random_profile(rng, locations=6, storages=12)
        ranks = (rng.integers(0, 3, 6) * rng.integers(0, 5, 6)).tolist()
        parts = profile.breakdown(ranks)
        assert parts.peak_bytes == profile.bytes(ranks) == union_bytes(profile, ranks)
        assert parts.constant_bytes + parts.module_bytes + parts.activation_bytes + parts.transient_bytes == (
            parts.peak_bytes
        )


def test_breakdown_names_every_term():
    profile = make_profile([10, 20], {(0,): 100, (0, 1): 200}, constant=1000, fixed=[1, 2], transient=5000)
    parts = profile.breakdown((0, 3))
    assert (parts.constant_bytes, parts.module_bytes, parts.activation_bytes, parts.transient_bytes) == (
        1000,
        62,
        200,
        5000,
    )


def test_json_round_trip():
    profile = random_profile(np.random.default_rng(1), locations=5, storages=8)
    assert MemoryProfile.from_json(json.loads(json.dumps(profile.to_json()))) == profile


@pytest.mark.parametrize("needed_by", [(), (1, 0), (1, 1)])
def test_storage_refuses_an_unsorted_or_empty_set(needed_by):
    with pytest.raises(PlanError, match="sorted set"):
        Storage(4, needed_by)


def test_storage_refuses_negative_bytes():
    with pytest.raises(PlanError, match="-4 bytes"):
        Storage(-4, (0,))


def test_profile_refuses_parts_that_disagree():
    with pytest.raises(PlanError, match=r"blocks .* 1 entries for 2"):
        make_profile([1, 1], {}, blocks=[0])
    with pytest.raises(PlanError, match="decrease"):
        make_profile([1, 1], {}, blocks=[1, 0])
    with pytest.raises(PlanError, match="negative"):
        make_profile([1, -1], {})
    with pytest.raises(PlanError, match="outside the 2"):
        make_profile([1, 1], {(0, 2): 1})


def test_strategy_is_checked():
    with pytest.raises(PlanError, match=r"ranks .* 3 entries for 2"):
        hand_profile().bytes((1, 1, 1))
    with pytest.raises(PlanError, match="lowest rank is -1"):
        hand_profile().bytes((-1, 1))
