import pytest

from taskit.errors import BudgetError
from taskit.planning.budget import device_memory, parse_budget
from taskit.terminal import show_bytes


@pytest.mark.parametrize(("text", "size"), [("800MiB", 800 * 2**20), ("1.5 GiB", 3 * 2**29), ("2gb", 2 * 10**9)])
def test_sizes(text, size):
    assert parse_budget(text).resolve(1, 2) == size


def test_a_percentage_lies_between_no_update_and_full_lora():
    assert parse_budget("60%").resolve(1000, 2000) == 1600
    assert parse_budget("0.5%").resolve(1000, 2000) == 1005


def test_auto_is_most_of_what_is_free():
    free, total = device_memory()
    assert 0.5 * free < parse_budget("auto").resolve(0, 1) < total


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("60", "no unit"),
        ("abc", "not understood"),
        ("0", "unit"),
        ("0%", "is 0"),
        ("0GiB", "is 0"),
        ("900TiB", "more"),
    ],
)
def test_bad_budgets_are_named(text, says):
    with pytest.raises(BudgetError, match=says):
        parse_budget(text)


def test_a_negative_budget_is_not_understood():
    with pytest.raises(BudgetError, match="not understood"):
        parse_budget("-3GiB")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (6 * 2**30, "6 GiB"), (-2048, "-2 KiB")]
)
def test_bytes_for_people(size, text):
    assert show_bytes(size) == text
