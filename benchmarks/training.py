"""Claim: a run killed at any moment ends with the same weights, and a step costs no more than a bare loop's.

    OMP_NUM_THREADS=1 python benchmarks/training.py [--parts kills steps] [--kills 30]

kills: ``kill -9`` at random moments of runs on handwritten digits, each resumed until it ends; the weights are
compared with those of a run that was left alone, and the optimizer steps that each kill cost are counted.
steps: CPU time of one optimizer step, of a bare PyTorch loop over the same PEFT model, batches and optimizer, of
TaskIT's own loop, and of TaskIT's loop at a 60 % budget against LoRA of rank 8 everywhere; alternated in one run.
Prints tables and writes training.json.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from taskit.backbone import head_names, load_model
from taskit.data import load, write_digits
from taskit.planning import make_collator, make_plan, uniform_plan
from taskit.training.fitting import MEASURED_STEPS
from taskit.training.lora import adapt
from taskit.training.recipe import Recipe
from taskit.training.run_folder import Event
from taskit.training.runs import Run
from taskit.training.step import make_optimizer
from taskit.training.trainer import train

BACKBONE = "vit-mini-tiny32"
SEED = 0


def few_digits(folder: Path, per_class: int) -> Path:
    """The digits, no more than ``per_class`` training images of each and a quarter as many for evaluation."""
    write_digits(folder)
    for split, kept in (("train", per_class), ("test", -(-per_class // 4))):
        for label in (folder / split).iterdir():
            for image in sorted(label.iterdir())[kept:]:
                image.unlink()
    return folder


def kills(scratch: Path, wanted: int) -> dict:
    data = few_digits(scratch / "few", per_class=8)
    recipe = Recipe(epochs=3, batch_size=8, checkpoint_seconds=0.3)
    plan = make_plan(data, BACKBONE, "60%", recipe=recipe, seed=SEED)
    choose, started = random.Random(SEED), time.monotonic()
    assert attempt(plan, scratch / "alone", None) == "ended"
    longest = time.monotonic() - started
    alone, rows, differences = scratch / "alone", [], []
    while len(rows) < wanted:
        folder = scratch / f"killed-{len(differences)}"
        while True:
            delay = choose.uniform(0, longest) if len(rows) < wanted else None
            if attempt(plan, folder, delay) == "ended":
                break
            if not folder.exists():  # killed before there was anything to keep
                rows.append({"delay_seconds": round(delay or 0, 2), "step": 0, "lost_steps": 0})
                continue
            rows.append({"delay_seconds": round(delay or 0, 2), **cost(folder)})
        differences.append(largest_difference(alone, folder))
        print(
            f"{len(rows)} kills so far; a killed run ended {differences[-1]:.1e} from the one left alone", flush=True
        )
        shutil.rmtree(folder)
    lost = [row["lost_steps"] for row in rows]
    print(f"steps lost to a kill: median {statistics.median(lost)}, most {max(lost)}", flush=True)
    return {"kills": rows, "differences": differences, "holds": max(differences) <= 1e-6}


def attempt(plan, folder: Path, delay: float | None) -> str:
    """Train in a fork, killed after ``delay`` seconds; "ended" or "killed"."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(plan, folder, resume=(folder / "plan.json").exists())
            status = 0
        finally:
            os._exit(status)
    until = None if delay is None else time.monotonic() + delay
    while until is None or time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, (folder / "state.json").read_text()
            return "ended"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True) if not (folder / "plan.json").exists() else None
    return "killed"


def cost(folder: Path) -> dict:
    """The step that a killed run had reached, and how many of its steps no checkpoint holds."""
    events = Run(folder).events()
    reached = max((event.step for event in events), default=0)
    held = [json.loads((path / "progress.json").read_text())["step"] for path in folder.glob("checkpoints/epoch-*")]
    return {"step": reached, "lost_steps": max(reached - max(held, default=0), 0)}


def largest_difference(one: Path, two: Path) -> float:
    ours, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, two))
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def steps(scratch: Path) -> dict:
    data = few_digits(scratch / "digits", per_class=60)
    recipe = Recipe(epochs=1, batch_size=16)
    planned = make_plan(data, BACKBONE, "60%", recipe=recipe, seed=SEED)
    everywhere = uniform_plan(data, BACKBONE, 8, recipe=recipe, seed=SEED)
    seconds: dict[str, list[float]] = {"bare": [], "taskit": [], "everywhere": []}
    for turn in range(3):
        seconds["bare"] += bare_loop(planned)
        seconds["taskit"] += own_loop(planned, scratch / f"planned-{turn}")
        seconds["everywhere"] += own_loop(everywhere, scratch / f"everywhere-{turn}")
    # the lower quartile: whatever else the machine does only ever adds to a step
    typical = {name: statistics.quantiles(times, n=4)[0] for name, times in seconds.items()}
    against_bare = typical["taskit"] / typical["bare"]
    against_everywhere = typical["taskit"] / typical["everywhere"]
    for name, value in typical.items():
        print(f"{name:12} {1000 * value:8.2f} ms a step", flush=True)
    print(
        f"against the bare loop {against_bare:.3f}; 60 % against LoRA everywhere {against_everywhere:.3f}", flush=True
    )
    return {
        "cpu_seconds_lower_quartile": typical,
        "cpu_seconds_median": {name: statistics.median(times) for name, times in seconds.items()},
        "steps_timed": {name: len(times) for name, times in seconds.items()},
        "against_bare_loop": against_bare,
        "against_lora_everywhere": against_everywhere,
        "holds": against_bare <= 1.05 and against_everywhere < 1,
    }


def own_loop(plan, folder: Path) -> list[float]:
    moments: list[float] = []

    def watch(event: Event) -> None:
        if event.kind == "step":
            moments.append(time.process_time())

    train(plan, folder, watch=watch)
    return between(moments)


def bare_loop(plan) -> list[float]:
    """What a PyTorch user would write, on the same rows in batches of the same size."""
    torch.manual_seed(plan.seed)
    rows = load(plan.data.source, columns=dict(plan.data.columns), seed=plan.seed).train
    model = load_model(plan.backbone, task=plan.data.task, labels=plan.data.labels)
    model = adapt(model, plan.ranks, head_names(model, plan.data.task), plan.data.task)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer("adamw", trained, plan.training.learning_rate, plan.training.weight_decay)
    collator = make_collator(plan.backbone, plan.data.task, None)
    model.train()
    moments = []
    for batch in DataLoader(rows, batch_size=plan.training.batch_size, shuffle=True, collate_fn=collator):
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        moments.append(time.process_time())
    return between(moments)


def between(moments: list[float]) -> list[float]:
    """Seconds from step to step, after those whose memory TaskIT counts."""
    after = moments[MEASURED_STEPS:]
    return [later - earlier for earlier, later in pairwise(after)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("kills", "steps"), default=["kills", "steps"])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("training.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # forks of a process with several would hang, and CPU time would not be time
    packages = {name: version(name) for name in ("taskit", "torch", "transformers", "peft", "accelerate")}
    command = f"python benchmarks/training.py --parts {' '.join(options.parts)} --kills {options.kills}"
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    found |= {"versions": packages, "machine": platform.machine(), "seed": SEED}
    with tempfile.TemporaryDirectory() as folder:
        if "steps" in options.parts:
            found["steps"] = {"command": command, **steps(Path(folder))}
        if "kills" in options.parts:
            found["kills"] = {"command": command, **kills(Path(folder), options.kills)}
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(found[part]["holds"] for part in options.parts) else 1)


if __name__ == "__main__":
    main()
