"""A wheel of the tracked files, installed beside the tests' own dependencies, does its work from an empty folder.

The demo runs here and nowhere else in the tests: minutes of it are enough once.
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.browser.conftest import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
OFFLINE = ("--no-index", "--no-deps")
ALONE = {"PYTHONPATH": ""}  # the checkout may be on it


def run(*words, cwd):
    """What a command prints on stdout, without the checkout on its path and with one thread: other tests run too."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **ALONE, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """The files that git knows, as they are now; a build in the checkout itself would leave folders there."""
    copy = tmp_path_factory.mktemp("tracked")
    listed = run("git", "-C", ROOT, "ls-files", "-z", cwd=ROOT).split("\0")
    names = [name for name in listed if name and (ROOT / name).exists()]
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    return copy, names


def build_wheel(source, folder):
    """By the setuptools of this environment, since a fresh one would have to be downloaded."""
    run(*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tracked, tmp_path_factory):
    return build_wheel(tracked[0], tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder `bin` of an environment with the wheel, which finds its dependencies where this one has them.

    They come by a .pth file, whose folders are searched last and whose own .pth files, such as that of an editable
    TaskIT, are not read.
    """
    fresh = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=fresh)
    python = fresh / "bin" / "python"
    run(*PIP, "--python", python, "install", *OFFLINE, wheel, cwd=fresh)
    paths = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (purelib,) = fresh.glob("lib/python*/site-packages")
    (purelib / "dependencies.pth").write_text("\n".join(paths) + "\n")
    return fresh / "bin"


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


def test_the_wheel_holds_the_package_and_the_zoo_and_nothing_else(tracked, wheel):
    _, names = tracked
    modules = {name for name in names if name.startswith("taskit/")}
    zoo = {name for name in names if name.startswith(("zoo/backbones/", "zoo/adapters/", "zoo/catalog.json"))}
    with ZipFile(wheel) as packed:
        found = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert len(zoo) > 50
    assert found == modules | {f"taskit/bundled_{name}" for name in zoo}


def test_the_source_distribution_makes_the_same_wheel(tracked, wheel, tmp_path):
    script = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    run(sys.executable, "-c", script, cwd=tracked[0])
    (sources,) = tmp_path.glob("*.tar.gz")
    with ZipFile(wheel) as one, ZipFile(build_wheel(sources, tmp_path)) as other:
        assert [(file.filename, file.CRC) for file in sorted(one.infolist(), key=lambda file: file.filename)] == [
            (file.filename, file.CRC) for file in sorted(other.infolist(), key=lambda file: file.filename)
        ]


def test_the_installed_package_is_what_runs(installed, empty):
    script = "import taskit, taskit.files as files; print(taskit.__file__, files.BUNDLED_ZOO, sep='\\n')"
    package, zoo = map(Path, run(installed / "python", "-c", script, cwd=empty).splitlines())
    assert installed.parent in package.parents
    assert zoo == package.parent / "bundled_zoo"


def test_the_zoo_is_listed(installed, empty):
    told = json.loads(run(installed / "taskit", "zoo", "--backbone", "vit-mini-tiny32", "--json", cwd=empty))
    assert {task["task"] for task in told["tasks"]} == {
        path.name for path in (ROOT / "zoo/adapters/vit-mini-tiny32").iterdir() if path.is_dir()
    }
    assert told["skipped"] == []


@pytest.fixture(scope="module")
def demo(installed, tmp_path_factory):
    """The folder where the demo was run, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run(installed / "taskit", "demo", cwd=folder)


def test_the_demo_goes_the_whole_road(demo, installed):
    folder, printed = demo
    result = json.loads((folder / "demo-run" / "run" / "result.json").read_text())
    plan = json.loads((folder / "demo-run" / "plan.json").read_text())
    assert result["after"] >= result["before"] + 0.02  # of 539 images; one standard error is 0.018
    assert 0.97 * result["measured_peak_bytes"] <= result["predicted_peak_bytes"]
    assert result["measured_peak_bytes"] <= plan["budget_bytes"]
    assert any(similarity["used"] for similarity in plan["similarity"])
    assert "Predictions" in printed
    adapter = "".join(path.read_text() for path in (folder / "demo-run/run/adapter").glob("*.[jm]*"))
    assert str(ROOT) not in adapter
    assert str(installed.parent) not in adapter


def test_a_job_takes_along_what_it_needs_and_no_zoo(demo, installed, tmp_path):
    script = (
        "from pathlib import Path; from taskit.jobs.packing import pack; from taskit.planning.plan import Plan\n"
        f"pack(Plan.load('demo-run/plan.json'), Path({str(tmp_path / 'pack.zip')!r}))"
    )
    run(installed / "python", "-c", script, cwd=demo[0])
    with ZipFile(tmp_path / "pack.zip") as packed:
        names, requirements = packed.namelist(), packed.read("requirements.txt").decode()
    assert {"taskit/jobs/worker.py", "vit-mini-tiny32/config.json", "plan.json"} <= set(names)
    assert not [name for name in names if "zoo/adapters" in name or "bundled_zoo" in name]
    assert "torch==" in requirements
    assert "gradio" not in requirements


def test_the_app_answers(installed, empty):
    with (
        serving(empty, ALONE, command=(installed / "taskit",), cwd=empty) as app,
        urllib.request.urlopen(app.url) as answer,
    ):
        assert answer.status == 200
