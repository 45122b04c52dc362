"""The paper's masks on a block whose units can be added by hand."""

from benchmarks.paper_memory import Tokens, linear_index, masked_bytes
from taskit.backbone.target_modules import Location

TOKENS = Tokens(rows=1, length=2, heads=1, number_bytes=1)  # a unit of width w is 2 w bytes, the weights 4


def block(index):
    widths = {"q": (4, 4), "k": (4, 4), "v": (4, 4), "o": (4, 4), "fc1": (4, 8), "fc2": (8, 4)}
    return [Location(f"{index}.{role}", index, role, *width) for role, width in widths.items()]


PLACES = block(0) + block(1)


def bytes_of(*inserted):
    return masked_bytes(PLACES, [8 if place.name in inserted else 0 for place in PLACES], TOKENS)


def test_each_location_of_the_last_block_needs_its_units():
    assert [bytes_of(f"1.{role}") for role in ("q", "k", "v", "o", "fc1", "fc2")] == [24, 24, 24, 8, 8, 16]


def test_units_are_counted_once():
    assert bytes_of("1.q", "1.k") == 4 * 8  # Q, K, V and the input


def test_blocks_after_the_first_insertion_keep_q_k_v_and_the_weights():
    assert bytes_of("0.fc2") == 16 + 3 * 8 + 4
    assert bytes_of("0.fc2", "1.fc2") == bytes_of("0.fc2") + 16


def test_nothing_inserted_needs_nothing():
    assert bytes_of() == 0


def test_the_linear_index_counts_from_the_first_insertion():
    assert linear_index(PLACES, [0] * 12) == 0
    assert linear_index(PLACES, [0] * 11 + [1]) == 1
    assert linear_index(PLACES, [1] + [0] * 11) == 12
