"""Two processes, one run: what torchrun and accelerate launch start."""

import json
import os
import subprocess
import sys

from safetensors.torch import load_file

from taskit.training.run_folder import RunFolder


def test_two_processes_train_one_run_within_the_plan_of_each(run, plan, tmp_path):
    plan.save(tmp_path / "plan.json")
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m"]
    words += ["taskit", "train", str(tmp_path / "plan.json"), "--out", str(tmp_path / "run"), "--json"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # of the first process alone
    assert result["processes"] == 2
    assert result["steps"] == 18, "90 rows in batches of 8 for each of two processes, three times"
    assert result["measured_peak_bytes"] <= plan.budget_bytes
    assert result["before"] == run[1].before
    assert abs(result["after"] - run[1].after) <= 0.2  # two standard errors of an accuracy over 24 rows
    events = RunFolder(tmp_path / "run").read_events()
    assert [event.step for event in events if event.kind == "step"] == list(range(1, 19))
    assert [event.epoch for event in events if event.kind == "epoch"] == [1, 2, 3]
    assert load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors").keys()
