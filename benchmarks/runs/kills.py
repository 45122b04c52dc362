"""Runs killed at random moments, each resumed until it ends, beside one that was left alone."""

import json
import os
import random
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from taskit.planning.plan import Plan
from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.training.checkpoint import find_checkpoints
from taskit.training.runs import Run
from taskit.training.trainer import train
from tests.world import write_bert, write_topics

KILLS_A_RUN = 10
MOST_LOST = 1  # steps: a checkpoint is written after every one
SAME = 1e-6


def kills(scratch: Path, wanted: int, seed: int) -> dict:
    """``wanted`` kills: two thirds at any moment, the rest aimed at a checkpoint and at the final save."""
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=5e-3, checkpoint_seconds=0.0)
    data, base = write_topics(scratch / "topics.csv", rows=60), write_bert(scratch / "bert")
    plan = make_plan(data, str(base), "60%", recipe=recipe, seed=seed)
    alone, started = scratch / "alone", time.monotonic()
    assert attempt(plan, alone, None) == "ended"
    longest = time.monotonic() - started
    choose, rows, differences = random.Random(seed), [], []
    aims = ["any"] * (wanted - 2 * (wanted // 6)) + ["checkpoint", "final save"] * (wanted // 6)
    choose.shuffle(aims)
    while aims:
        folder, hits = scratch / f"killed-{len(differences)}", 0
        while aims and hits < KILLS_A_RUN:
            if attempt(plan, folder, moment(folder, aims[-1], longest, choose)) == "ended":
                break
            rows.append({"aim": aims.pop(), **cost(folder)})
            hits += 1
        if not (folder / "result.json").exists():
            assert attempt(plan, folder, None) == "ended"
        differences.append(largest_difference(alone, folder))
        print(f"{len(rows):3} kills; a killed run ended {differences[-1]:.1e} from the one left alone", flush=True)
        shutil.rmtree(folder)
    lost, inside = [row["lost_steps"] for row in rows], [row["inside"] for row in rows]
    hit = {where: inside.count(where) for where in sorted(set(inside))}
    print(f"killed inside {hit}; steps lost: median {statistics.median(lost)}, most {max(lost)}", flush=True)
    return {
        "kills": rows,
        "killed_inside": hit,
        "differences": differences,
        "most_steps_lost": max(lost),
        "holds": max(differences) <= SAME and max(lost) <= MOST_LOST,
    }


def moment(folder: Path, target_update: str, longest: float, choose: random.Random) -> Callable[[float], bool]:
    """Whether, so many seconds after the start, the moment of the kill is there."""
    wait, since = choose.uniform(0, longest), choose.uniform(0, 0.02)
    seen: list[float] = []

    def now(seconds: float) -> bool:
        if target_update == "any":
            return seconds >= wait
        begun = inside(folder) == target_update and (target_update == "final save" or seconds >= wait)
        if begun and not seen:
            seen.append(seconds)
        return bool(seen) and seconds >= seen[0] + since

    return now


def inside(folder: Path) -> str:
    """What a run is at, by what lies in its folder."""
    if (folder / "checkpoints" / "checkpoint.part").exists():
        return "checkpoint"
    saving = (folder / "adapter.part").exists() or (folder / "adapter").exists()
    return "final save" if saving and not (folder / "result.json").exists() else "elsewhere"


def attempt(plan: Plan, folder: Path, at: Callable[[float], bool] | None) -> str:
    """Train in a fork, killed as soon as ``at`` says so; "ended" or "killed"."""
    if state(folder) == "done":  # the last kill came after all was kept
        return "ended"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            train(plan, folder, resume=(folder / "plan.json").exists())
            status = 0
        finally:
            os._exit(status)
    started = time.monotonic()
    while at is None or not at(time.monotonic() - started):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, (folder / "state.json").read_text()
            return "ended"
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "killed"


def cost(folder: Path) -> dict:
    """Where a run was killed, the step that it had reached, and how many of its steps no checkpoint holds."""
    if not (folder / "plan.json").exists():  # killed before there was anything to keep
        shutil.rmtree(folder, ignore_errors=True)
        return {"inside": "start", "step": 0, "lost_steps": 0}
    reached = max((event.step for event in Run(folder).events()), default=0) if state(folder) else 0
    held = [
        json.loads((path / "progress.json").read_text())["step"] for path in find_checkpoints(folder / "checkpoints")
    ]
    return {"inside": inside(folder), "step": reached, "lost_steps": max(reached - max(held, default=0), 0)}


def state(folder: Path) -> str:
    """What the run says that it is; nothing before it has begun."""
    told = folder / "state.json"
    return json.loads(told.read_text())["state"] if told.exists() else ""


def largest_difference(one: Path, two: Path) -> float:
    ours, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, two))
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)
