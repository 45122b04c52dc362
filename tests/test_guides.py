"""What the guides name exists, and what they tell to write or to type works."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from taskit.cli.main import build_parser
from tests.profiles import llama_profile

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name",
    ["README.md", "CHANGELOG.md", "docs/architecture.md", "docs/adding.md", "docs/memory.md", "docs/evidence.md"],
)
def test_every_path_that_is_named_exists(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    code = re.findall(r"`((?:taskit|benchmarks|tests|zoo|docs)/[\w./-]*)`", text)
    links = [
        str((ROOT / name).parent.relative_to(ROOT) / link) for link in re.findall(r"\]\((?!https?:)([\w./-]+)", text)
    ]
    assert [path for path in (*code, *links) if not (ROOT / path).exists()] == []


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / name).read_text(), re.DOTALL | re.MULTILINE)


def test_the_method_of_the_guide_plans():
    (code,) = blocks("adding.md", "python")
    names = {}
    exec(compile(code, "adding.md", "exec"), names)
    profile = llama_profile(2)
    low, high = (profile.bytes((rank,) * len(profile.locations)) for rank in (0, 8))
    resolved = names["BLIND"].resolve(None, {})
    chosen = resolved.solve(profile, [0.0] * len(profile.locations), (low + high) // 2)
    assert any(chosen.ranks)
    assert profile.bytes(chosen.ranks) <= (low + high) // 2


def test_the_commands_of_the_guide_are_understood():
    lines = [line[2:] for block in blocks("adding.md", "console") for line in block.splitlines()]
    typed = [shlex.split(line)[1:] for line in lines if line.startswith("taskit ")]
    assert len(typed) == 4
    for words in typed:
        assert build_parser().parse_args(words)


def test_the_guide_names_every_place_that_tells_tasks_apart():
    text = (ROOT / "docs" / "adding.md").read_text()
    for path in (ROOT / "taskit").rglob("*.py"):
        constants = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        if "image-text-to-text" in constants:
            assert path.relative_to(ROOT).as_posix() in text
