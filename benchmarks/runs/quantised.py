"""A small Llama in 8 and in 4 bits: the loss falls, and the peak stays within the plan."""

import json
import statistics
from pathlib import Path

from taskit.planning.planner import make_plan
from taskit.planning.recipe import Recipe
from taskit.training.run_folder import Event
from taskit.training.trainer import train
from tests.world import write_llama, write_rhymes

ROWS = 64
BITS = (None, "8bit", "4bit")


def quantised(scratch: Path, seed: int, weights: Path | None, data: Path | None) -> dict:
    """On real weights and real prompts where their folders are given, else on a small random Llama and rhymes."""
    base = weights / "stories260K_llama" if weights else write_llama(scratch / "llama")
    source = first_rows(data / "e2e_nlg_train.jsonl", scratch) if data else write_rhymes(scratch / "rhymes.jsonl")
    recipe = Recipe(epochs=2, batch_size=4, max_length=64)
    rows = []
    for bits in BITS:
        plan = make_plan(source, str(base), "80%", recipe=recipe, quantization=bits, seed=seed)
        losses: list[float] = []

        def watch(event: Event, losses: list[float] = losses) -> None:
            if event.kind == "step" and event.loss is not None:
                losses.append(event.loss)

        result = train(plan, scratch / f"bits-{bits}", watch=watch)
        quarter = len(losses) // 4
        row = {"bits": bits or "none", "before": result.before, "after": result.after, "steps": result.steps}
        row |= {
            "first_quarter": statistics.mean(losses[:quarter]),
            "last_quarter": statistics.mean(losses[-quarter:]),
        }
        row |= {"predicted": result.predicted_peak_bytes, "measured": result.measured_peak_bytes}
        row |= {"budget": plan.budget_bytes}
        falls = row["after"] < row["before"] and row["last_quarter"] < row["first_quarter"]
        row["holds"] = falls and row["measured"] <= row["budget"]
        rows.append(row)
        print(
            f"{row['bits']:5} loss {row['before']:.3f} -> {row['after']:.3f}  predicted {row['predicted']:,}  "
            f"measured {row['measured']:,}  budget {row['budget']:,}",
            flush=True,
        )
    return {"backbone": base.name, "data": source.name, "rows": rows, "holds": all(row["holds"] for row in rows)}


def first_rows(source: Path, scratch: Path) -> Path:
    few = scratch / source.name
    lines = source.read_text(encoding="utf-8").splitlines()[:ROWS]
    assert all(json.loads(line) for line in lines)
    few.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return few
