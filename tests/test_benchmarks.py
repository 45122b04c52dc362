"""Benchmarks are run by hand, so that nothing else would notice what they import being renamed."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(ROOT).with_suffix("") for path in (ROOT / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_benchmark_can_be_imported(module):
    imported = importlib.import_module(".".join(module.parts))
    assert imported.__doc__, "say in its first line what it claims"
