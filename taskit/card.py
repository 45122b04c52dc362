"""The model card of an adapter, written for people and for the Hub's own reader."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from taskit.budget import show_bytes
from taskit.plan import Plan

if TYPE_CHECKING:
    from taskit.training.run_folder import Result

AUTO_CLASSES = {
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
}
BODY = """
# {name} on {base}

A LoRA adapter for **{task}**, planned and trained with TaskIT: {inserted} of {candidates} projection matrices
got a LoRA, so that training stayed within {budget}.

| | {metric} |
|---|---|
| linear head alone | {before:.4f} |
| with this adapter | {after:.4f} |

Measured on {eval_rows} held-out rows; {train_rows} rows were trained on, a tenth of them to choose the epoch.

| peak memory of training | |
|---|---|
| predicted | {predicted} |
| measured ({measured_with}) | {measured} |
| LoRA of rank 8 everywhere would need | {full} |

## Use

```python
from peft import PeftModel
from transformers import {auto_class}

base = {auto_class}.from_pretrained("{base}"{labels_argument})
model = PeftModel.from_pretrained(base, "path/or/hub-id/of/this/adapter")
```
{labels}
## Plan

Similar learned tasks: {similar}.

<details><summary>Rank of every inserted location</summary>

```json
{ranks}
```
</details>
"""


def write_card(plan: Plan, result: "Result", path: Path) -> None:
    """Write README.md with validated metadata; every figure is the run's own."""
    from huggingface_hub import EvalResult, ModelCardData

    name = Path(plan.data.source).stem
    score = EvalResult(
        task_type=plan.data.task,
        dataset_type=name,
        dataset_name=name,
        metric_type=result.metric,
        metric_value=round(result.after, 4),
    )
    data = ModelCardData(
        base_model=plan.backbone.id,
        library_name="peft",
        pipeline_tag=plan.data.task,
        tags=["lora", "taskit", f"base_model:adapter:{plan.backbone.id}"],
        model_name=name,
        eval_results=[score],
    )
    path.write_text(f"---\n{data.to_yaml()}\n---\n{BODY.format(**_fields(plan, result, name))}", encoding="utf-8")


def _fields(plan: Plan, result: "Result", name: str) -> dict:
    ranks = {x: rank for x, rank in plan.ranks.items() if rank}
    similar = ", ".join(f"{s.task} ({s.phi:.3f})" for s in plan.similarity if s.used)
    labels = "\n".join(f"{i}. {label}" for i, label in enumerate(plan.data.labels))
    return {
        "name": name,
        "base": plan.backbone.id,
        "task": plan.data.task,
        "inserted": len(ranks),
        "candidates": len(plan.locations),
        "budget": show_bytes(plan.budget_bytes),
        "metric": result.metric,
        "before": result.before,
        "after": result.after,
        "eval_rows": plan.data.eval_rows,
        "train_rows": plan.data.train_rows,
        "predicted": show_bytes(result.predicted_peak_bytes),
        "measured": show_bytes(result.measured_peak_bytes),
        "measured_with": result.measured_with,
        "full": show_bytes(plan.memory.full_lora_bytes),
        "auto_class": AUTO_CLASSES[plan.data.task],
        "labels_argument": f", num_labels={len(plan.data.labels)}, ignore_mismatched_sizes=True" if labels else "",
        "labels": f"\nLabels, in the order of the logits:\n\n{labels}\n" if labels else "",
        "similar": similar or "none, so every location counted alike",
        "ranks": json.dumps(ranks, indent=2),
    }
