"""`make demo` as a stranger runs it: the real backbone, zoo and digits, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import taskit

ROOT = Path(taskit.__file__).parents[1]


def test_the_demo_goes_the_whole_road(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "taskit.cli.demo"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # the other cores run other tests
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "demo-run" / "run" / "result.json").read_text())
    plan = json.loads((tmp_path / "demo-run" / "plan.json").read_text())
    assert result["after"] >= result["before"] + 0.02  # of 539 images; one standard error is 0.018
    assert 0.97 * result["measured_peak_bytes"] <= result["predicted_peak_bytes"]
    assert result["measured_peak_bytes"] <= plan["budget_bytes"]
    assert any(similarity["used"] for similarity in plan["similarity"])
    assert "Predictions" in done.stdout
    assert str(ROOT) not in "".join(p.read_text() for p in (tmp_path / "demo-run/run/adapter").glob("*.[jm]*"))
