"""One row twenty times longer than the rest: what happens to plans made without it, and to plans made with it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from taskit.data import load
from taskit.errors import TaskITError
from taskit.planning.plan import Plan
from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.training import loop
from taskit.training.run_folder import Event
from taskit.training.trainer import train
from tests.world import write_llama

SHORT, LONG = 12, 240  # words
BATCH = 8


def hardest(scratch: Path, seed: int) -> dict:
    """Ways into trouble, each with the peak of every step counted.

    The short rows' own plan set onto all rows, as an edited file would have it; the same with room for one long
    row at a time, as it is and with ``tighten``; and a new plan in the short rows' budget.
    """
    base = roomy(write_llama(scratch / "roomy"))
    short, hard = write_rows(scratch / "short.jsonl", 0), write_rows(scratch / "hard.jsonl", 1)
    recipe = Recipe(epochs=1, batch_size=BATCH)
    easy = make_plan(short, str(base), "100%", recipe=recipe, seed=seed)
    single = make_plan(hard, str(base), "100%", recipe=replace(recipe, batch_size=1), seed=seed)
    forced = replace(easy, data=load(hard, seed=seed).info)
    room = replace(forced, budget_bytes=int(1.5 * single.budget_bytes))
    tight = f"{easy.budget_bytes / 2**20}MiB"
    rows = [
        attempt("plan of the short rows, on all rows", lambda: forced, scratch / "forced", tighten=False),
        attempt("room for one long row", lambda: room, scratch / "room", tighten=False),
        attempt("room for one long row, tightened", lambda: room, scratch / "tightened", tighten=True),
        attempt(
            "new plan in the short rows' budget",
            lambda: make_plan(hard, str(base), tight, recipe=recipe, seed=seed),
            scratch / "again",
            tighten=True,
        ),
    ]
    return {"short_words": SHORT, "long_words": LONG, "rows": rows, "holds": all(row["holds"] for row in rows)}


def attempt(name: str, make: Callable[[], Plan], out: Path, tighten: bool) -> dict:
    """Plan and train; holds where it was refused before the first step, or never took more than its budget."""
    steps: list[int] = []

    def watch(event: Event) -> None:
        if event.kind == "step":
            steps.append(event.step)

    row: dict = {"way": name}
    try:
        plan = make()
        with patch.object(loop, "MEASURED_STEPS", sys.maxsize):  # not only the first ones
            result = train(plan, out, tighten=tighten, watch=watch)
    except TaskITError as error:
        row |= {"refused": str(error), "steps": len(steps), "holds": not steps}
    else:
        used = json.loads((out / "plan.json").read_text())
        row |= {"budget": plan.budget_bytes, "measured": result.measured_peak_bytes, "steps": len(steps)}
        row |= {"micro_batch": used["training"]["batch_size"]}
        row["holds"] = row["measured"] <= row["budget"]
    print(row, flush=True)
    return row


def write_rows(path: Path, long: int) -> Path:
    """Sixty prompts of which ``long`` are twenty times as long."""
    words = ["the", "old", "cat", "near", "a", "dog", "and", "some", "big", "red", "horse"]
    lines = []
    for n in range(60):
        length = LONG if n >= 60 - long else SHORT
        prompt = " ".join(words[(n + k) % len(words)] for k in range(length)) + f" {n}"
        lines.append(json.dumps({"prompt": prompt, "completion": words[n % len(words)]}))
    path.write_text("\n".join(lines) + "\n")
    return path


def roomy(base: Path) -> Path:
    """The small Llama with a context that holds the long row; rotary positions need no weights."""
    for name, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        path = base / name
        path.write_text(json.dumps({**json.loads(path.read_text()), key: 512}))
    return base
