"""The model card of an adapter, written for people and for the Hub's own reader, and its picture of the plan."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from taskit.planning.plan import Plan
from taskit.planning.rank_grid import rank_grid
from taskit.terminal import show_bytes
from taskit.zoo.adapter import CONFIG

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

    from taskit.training.results import Result

CELL, MARGIN, TEXT = (64, 32), (72, 56), 15  # pixels; a PNG, for the Hub serves an SVG of a stranger as text
AUTO_CLASSES = {
    "image-classification": "AutoModelForImageClassification",
    "text-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
    "image-text-to-text": "AutoModelForImageTextToText",
}
BODY = """
# {name} on {base}

A LoRA adapter for **{task}** on {base_link}, planned and trained with TaskIT: {inserted} of {candidates} projection
matrices got a LoRA, so that training stayed within {budget}.

| | {metric} |
|---|---|
| {baseline} | {before:.4f} |
| with this adapter | {after:.4f} |

Measured on {eval_rows} held-out rows; {train_rows} rows were trained on, a tenth of them to choose the epoch.
Data: {data}. Licence: {licence}.

## Use

```python
from peft import PeftModel
from transformers import {auto_class}
base = {auto_class}.from_pretrained("{base}"{arguments})
model = PeftModel.from_pretrained(base, "{repo}")
```
{labels}
## Memory

| peak memory of training | |
|---|---|
| budget | {budget} |
| predicted | {predicted} |
| measured ({measured_with}) | {measured} |
| LoRA of rank 8 everywhere would need | {full} |
| an optimizer step | {step} |

## Plan

Similar learned tasks: {similar}.
{picture}
<details><summary>Rank of every inserted location</summary>

```json
{ranks}
```
</details>
"""


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as card metadata names it: ``id`` is one of the Hub's, or "other" with a ``name`` and a ``text``."""

    id: str
    name: str = ""
    link: str = ""
    text: str = ""

    def __str__(self) -> str:
        return self.text or self.name or self.id


@dataclass(frozen=True, slots=True)
class Publication:
    """What is known only at a push; the defaults are those of a card that stays on this machine.

    ``dataset`` is the Hub id of a public dataset, None for any other.  ``base_on_hub`` is False for a backbone
    that comes with TaskIT.  ``pinned`` maps the adapters that may be named and linked to their revision.
    """

    name: str
    repo: str = "path/or/hub-id/of/this/adapter"
    dataset: str | None = None
    licence: Licence | None = None
    base_on_hub: bool = True
    pinned: Mapping[str, str] = field(default_factory=dict)
    picture: str = ""


def write_card(plan: Plan, result: "Result", folder: Path, publication: Publication) -> None:
    """Write README.md beside the adapter_config.json in ``folder``; every figure is the run's own."""
    metadata = _metadata(plan, result, publication).to_yaml()
    config = json.loads((folder / CONFIG).read_text())
    body = BODY.format(**_fields(plan, result, publication, config))
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n{body}", encoding="utf-8")


def _metadata(plan: Plan, result: "Result", publication: Publication) -> "ModelCardData":
    from huggingface_hub import EvalResult, ModelCardData

    dataset, licence = publication.dataset, publication.licence
    where: dict[str, Any] = {
        "task_type": plan.data.task,
        "dataset_type": dataset or "unpublished",
        "metric_type": result.metric,
    }
    where |= {"dataset_name": dataset or "unpublished data", "dataset_split": "held-out rows"}
    scores = [
        EvalResult(**where, metric_name=f"{result.metric} {how}", metric_value=value)
        for how, value in (("with this adapter", result.after), (_baseline(plan), result.before))
    ]
    return ModelCardData(
        base_model=plan.backbone.id,
        base_model_relation="adapter",
        datasets=[dataset] if dataset else None,
        library_name="peft",
        license=licence.id if licence else None,
        license_name=licence.name or None if licence else None,
        license_link=licence.link or None if licence else None,
        pipeline_tag=plan.data.task,
        tags=["lora", "taskit", f"base_model:adapter:{plan.backbone.id}"],
        model_name=publication.name,
        eval_results=scores,
    )


def _fields(plan: Plan, result: "Result", publication: Publication, config: Mapping[str, Any]) -> dict:
    # by the configuration: a method may ship another rank than the one that was planned
    pattern = config.get("rank_pattern", {}) if any(plan.ranks.values()) else {}
    encoder_decoder = config.get("task_type") == "SEQ_2_SEQ_LM"
    ranks = {re.sub(r"\\(.)", r"\1", key.removeprefix("^")): rank for key, rank in pattern.items()}
    base, licence, dataset = plan.backbone.id, publication.licence, publication.dataset
    return {
        "name": _plain(publication.name),
        "repo": publication.repo,
        "base": base,
        "base_link": _link(base) if publication.base_on_hub else f"`{base}`, which comes with TaskIT",
        "task": plan.data.task,
        "inserted": len(ranks),
        "candidates": len(plan.locations),
        "budget": show_bytes(plan.budget_bytes),
        "metric": result.metric,
        "baseline": _baseline(plan),
        "before": result.before,
        "after": result.after,
        "eval_rows": plan.data.eval_rows,
        "train_rows": plan.data.train_rows,
        "data": _link(dataset, "datasets/") if dataset else "not published",
        "licence": f"{_plain(str(licence))}, inherited from the base" if licence else "that of the base",
        "predicted": show_bytes(result.predicted_peak_bytes),
        "measured": show_bytes(result.measured_peak_bytes),
        "measured_with": result.measured_with,
        "full": show_bytes(plan.memory.full_lora_bytes),
        "step": plan.training.step,
        "auto_class": "AutoModelForSeq2SeqLM" if encoder_decoder else AUTO_CLASSES[plan.data.task],
        "arguments": _arguments(plan),
        "labels": _labels(plan),
        "similar": _similar(plan, publication) or "none, so every location counted alike",
        "picture": publication.picture and f"\n![Rank of each location by block and role]({publication.picture})\n",
        "ranks": json.dumps(ranks, indent=2),
    }


def _baseline(plan: Plan) -> str:
    return "with a linear head only" if plan.data.labels else "of the base model"


def _arguments(plan: Plan) -> str:
    revision = plan.backbone.revision or ""
    pinned = f', revision="{revision}"' if re.fullmatch("[0-9a-f]{40}", revision) else ""
    count = len(plan.data.labels)
    return pinned + (f", num_labels={count}, ignore_mismatched_sizes=True" if count else "")


def _labels(plan: Plan) -> str:
    rows = "\n".join(f"{i}. {_plain(label)}" for i, label in enumerate(plan.data.labels))
    return f"\nLabels, in the order of the logits:\n\n{rows}\n" if rows else ""


def _similar(plan: Plan, publication: Publication) -> str:
    used = sorted((s for s in plan.similarity if s.used), key=lambda s: -s.phi)
    names = [
        _link(s.adapter, text=s.task) if publication.pinned.get(s.adapter) else _plain(s.task or "an unpublished one")
        for s in used
    ]
    return ", ".join(f"{name} ({s.phi:.3f})" for name, s in zip(names, used, strict=True))


def _link(id: str, kind: str = "", text: str = "") -> str:
    return f"[{_plain(text or id)}](https://huggingface.co/{kind}{id})"


def _plain(text: str) -> str:
    """Text of a stranger on one line, none of it Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&])", r"\\\1", " ".join(text.split())[:200])


def draw_plan(plan: Plan, path: Path) -> None:
    """Write a PNG with blocks down, roles across, each location's rank on a colour as bright as its importance."""
    grid = rank_grid(plan)
    (width, height), (left, top) = CELL, MARGIN
    longest = max(len(cell.text) for cell in grid.cells.values())
    width = max(width, (longest + 2) * TEXT * 2 // 3)
    size = (left + width * len(grid.roles) + 16, top + height * len(grid.blocks) + 16)
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(TEXT)
    draw.text((12, 8), "LoRA rank by block and role (brighter = more important)", fill="black", font=font)
    for column, role in enumerate(grid.roles):
        draw.text((left + width * (column + 0.5), top - 12), role, fill="black", font=font, anchor="mm")
    for row, block in enumerate(grid.blocks):
        draw.text((left - 12, top + height * (row + 0.5)), str(block), fill="black", font=font, anchor="rm")
        for column, role in enumerate(grid.roles):
            cell = grid.cells.get((block, role))
            if cell is not None:
                x, y = left + width * column, top + height * row
                draw.rectangle((x, y, x + width - 2, y + height - 2), fill=cell.shade)
                middle = (x + width / 2 - 1, y + height / 2 - 1)
                draw.text(middle, cell.text, fill=cell.ink, font=font, anchor="mm")
    image.save(path, "PNG")
