"""Two processes beside one: the same rows a step, the accuracy, and each one's peak against the plan."""

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from taskit.planning.plan import Plan
from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.training.results import Result
from taskit.training.trainer import train
from tests.world import write_bert, write_topics

BATCH = 16
FACTS = ("processes", "before", "after", "steps", "predicted_peak_bytes", "measured_peak_bytes")
WAYS = {"one process": 1, "two processes": 2}


def processes(scratch: Path, seeds: Sequence[int]) -> dict:
    data, base = write_topics(scratch / "sentences.csv", rows=400), write_bert(scratch / "base")
    rows = []
    for seed in seeds:
        for name, count in WAYS.items():
            recipe = Recipe(epochs=2, batch_size=BATCH // count, learning_rate=5e-3)
            plan = make_plan(data, str(base), "60%", recipe=recipe, seed=seed)
            out = scratch / f"{name}-{seed}"
            result = together(plan, out) if count > 1 else _facts(train(plan, out))
            row = {"way": name, "seed": seed, "evaluation_rows": plan.data.eval_rows, **result}
            row["peak_over_prediction"] = row["measured_peak_bytes"] / row["predicted_peak_bytes"]
            rows.append(row)
            print(
                f"{name:14} seed {seed}  accuracy {row['before']:.3f} -> {row['after']:.3f}  "
                f"peak {row['peak_over_prediction']:.2%} of the prediction",
                flush=True,
            )
    one, two = (statistics.mean(row["after"] for row in rows if row["way"] == name) for name in WAYS)
    asked = len(seeds) * rows[0]["evaluation_rows"]
    noise = 2 * math.sqrt(2 * max(one * (1 - one), 1 / asked) / asked)  # two standard errors of a difference
    fits = all(row["measured_peak_bytes"] <= row["predicted_peak_bytes"] for row in rows)
    print(f"accuracy {one:.3f} by one, {two:.3f} by two; noise {noise:.3f}", flush=True)
    return {"rows": rows, "difference": two - one, "noise": noise, "holds": abs(two - one) <= noise and fits}


def together(plan: Plan, out: Path) -> dict:
    """Train in two processes, as torchrun and accelerate launch start them."""
    plan.save(out.with_suffix(".json"))
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m"]
    words += ["taskit", "train", str(out.with_suffix(".json")), "--out", str(out), "--json"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return {name: json.loads(done.stdout)[name] for name in FACTS}


def _facts(result: Result) -> dict:
    return {name: getattr(result, name) for name in FACTS}
