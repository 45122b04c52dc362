"""What was freed goes back to the system, and the decorated function is as it was."""

import platform
from typing import get_type_hints

import psutil
import pytest

from taskit.ui.decorators import trim_memory


def freed(decorate):
    """Resident bytes that a function leaves behind which has freed 40 MB in pieces below glibc's mmap threshold."""

    def piecemeal():
        pieces = [bytes(80_000) for _ in range(500)]
        last = bytes(80_000)
        del pieces
        return last

    before = psutil.Process().memory_info().rss
    kept = decorate(piecemeal)()
    assert len(kept) == 80_000
    return psutil.Process().memory_info().rss - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_what_was_freed_is_given_back():
    assert freed(trim_memory) < 10_000_000


def test_name_words_and_types_stay_for_the_api():
    @trim_memory
    def plan(budget: str = "60%") -> int:
        """Plan it."""
        raise KeyError(budget)

    assert (plan.__name__, plan.__doc__, get_type_hints(plan)) == ("plan", "Plan it.", {"budget": str, "return": int})
    with pytest.raises(KeyError, match="much"):
        plan("much")
