"""The house rules that a reader relies on, held by machine."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import taskit

ROOT = Path(taskit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_only_the_ui_knows_gradio_and_the_scheduler_no_torch(path):
    names = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
    place = path.relative_to(ROOT).parts[0]
    assert "gradio" not in names or place == "ui"
    assert "torch" not in names or place != "scheduler"


def test_importing_taskit_loads_neither_torch_nor_gradio():
    script = (
        "import sys, taskit, taskit.cli.main; print(*sorted({'torch', 'gradio', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_public_names_are_there():
    assert {"make_plan", "train", "Plan", "TaskITError"} <= set(taskit.__all__)
    for name in taskit.__all__:
        assert getattr(taskit, name).__doc__, name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 80, node.name


def test_no_docstring_is_missing_on_modules():
    assert [p for p in FILES if not ast.get_docstring(ast.parse(p.read_text()))] == []
