"""The house rules that a reader relies on, held by machine."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import taskit

ROOT = Path(taskit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# From the ground up: a package imports only what stands before it, inside functions and for types, too.
PACKAGES = (
    "data",
    "backbone",
    "step",
    "zoo",
    "memory",
    "transfer",
    "scheduler",
    "methods",
    "planning",
    "training",
    "together",
    "sharing",
    "jobs",
    "ui",
    "cli",
)
AT_ROOT = {"__init__.py", "__main__.py", "errors.py", "files.py", "terminal.py"}
# Small files are read together: these packages hold few of them.
SMALL, MOST_SMALL = 45, 25


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


def package_of(module):
    """The package of ``taskit.PACKAGE.…``; None for the files at the root, which stand below all packages."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in PACKAGES else None


def upward(package, tree):
    """What a file of ``package`` imports from packages after it; one at the root may import no package at all."""
    rank = PACKAGES.index(package) if package else -1
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            target = package_of(name) if name.startswith("taskit.") else None
            if target and PACKAGES.index(target) > rank:
                yield name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_package_imports_only_what_stands_before_it(path):
    place = path.relative_to(ROOT).parts
    package = place[0] if len(place) > 1 else None
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], (
        "write taskit. out"
    )
    if place not in (("__init__.py",), ("__main__.py",)):  # the doors to the house
        assert list(upward(package, tree)) == []


def test_an_import_that_runs_up_is_seen_wherever_it_stands():
    source = "def plan():\n    from taskit.ui.app import launch\n    import taskit.memory.profile\n"
    assert list(upward("planning", ast.parse(source))) == ["taskit.ui.app.launch"]
    assert list(upward(None, ast.parse("from taskit import data, errors"))) == ["taskit.data"]


def test_no_circle_of_imports_inside_a_package():
    """Modules that import each other, function-level imports included, have no order in which to read them."""
    modules = {
        ".".join(("taskit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in FILES
        if path.parent != ROOT or path.name not in ("__init__.py", "__main__.py")
    }
    imports = {name: set(known(ast.parse(path.read_text()), modules)) - {name} for name, path in modules.items()}
    assert len([*TopologicalSorter(imports).static_order()]) == len(modules)  # a CycleError names the circle


def known(tree, modules):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from (name for name in (full if full in modules else node.module,) if name in modules)


def test_the_root_of_the_package_holds_five_files_and_the_packages():
    assert {path.name for path in ROOT.glob("*.py")} == AT_ROOT
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(PACKAGES)


def test_the_tests_mirror_the_packages():
    folders = {path.parent.name for path in (ROOT.parent / "tests").glob("*/test_*.py")}
    assert folders == {*PACKAGES, "benchmarks", "browser"}


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_the_tree_of_a_page_is_the_tree(page):
    text = (ROOT.parent / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```\ntaskit/\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for line in block.splitlines() if re.match(r"  \w", line)]
    named = [name.rstrip("/") for line in lines for name in re.findall(r"^  (\S+/|(?:\w+\.py ?)+)", line)[0].split()]
    assert named == [*sorted(AT_ROOT - {"__init__.py", "__main__.py"}), *PACKAGES]


def test_the_files_that_architecture_names_are_the_files():
    text = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in PACKAGES:
        (row,) = re.findall(rf"^\| `{package}/` \|.*$", text, re.MULTILINE)
        named = set(re.findall(r"`([\w/]+\.py)`", row))
        files = (ROOT / package).rglob("*.py")
        assert named == {f.relative_to(ROOT / package).as_posix() for f in files if f.name != "__init__.py"}, package


def test_few_files_are_small():
    assert sum(len(path.read_text().splitlines()) < SMALL for path in FILES) <= MOST_SMALL


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
