"""Write a trained adapter as a plain PEFT folder: config, safetensors, card and taskit.json."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskit import __version__
from taskit.planning.plan import Plan
from taskit.step.lora import adapt
from taskit.training.card import Publication, write_card
from taskit.zoo.adapter import NOTES, WEIGHTS

if TYPE_CHECKING:
    from taskit.training.results import Result


def write_adapter(model: Any, plan: Plan, result: "Result", embedding: Sequence[float], folder: Path) -> None:
    """Save the LoRA and heads of ``model`` into ``folder``, which appears whole or not at all.

    ``embedding`` is that of the training rows, see `taskit.transfer.embedding`.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_weights(_as_peft(model, plan), plan, part)
    name = Path(plan.data.source).stem
    write_notes(plan, result, name, part, embedding=list(embedding))
    write_card(plan, result, part, Publication(name))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _as_peft(model: Any, plan: Plan) -> Any:
    """A plan without any insertion trained its heads only; PEFT knows no adapter without a LoRA, so one of
    rank 1 that adds exactly zero goes to the last location."""
    if hasattr(model, "peft_config"):
        return model
    heads = [name for name, p in model.named_parameters() if p.requires_grad]
    last = plan.locations[-1].name
    return adapt(model, {last: 1}, sorted({name.rsplit(".", 1)[0] for name in heads}), plan.data.task)


def write_weights(model: Any, plan: Plan, folder: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.peft_config["default"]
    # The id, not the folder that the base was loaded from: a path of this machine is of no use elsewhere.
    config.base_model_name_or_path = plan.backbone.id
    config.inference_mode = True
    config.save_pretrained(folder)
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def write_notes(plan: Plan, result: "Result", name: str, folder: Path, **more: Any) -> None:
    """Write taskit.json: what a zoo reads before it opens any weight."""
    text = json.dumps(_notes(plan, result, name) | more, indent=2, ensure_ascii=False)
    (folder / NOTES).write_text(text + "\n", encoding="utf-8")


def _notes(plan: Plan, result: "Result", name: str) -> dict:
    return {
        "taskit": __version__,
        "name": name,
        "backbone": {"id": plan.backbone.id, "revision": plan.backbone.revision},
        "task": plan.data.task,
        "labels": list(plan.data.labels),
        "metric": result.metric,
        "value": result.after,
        "head_alone": result.before,
        "budget_bytes": plan.budget_bytes,
        "predicted_peak_bytes": result.predicted_peak_bytes,
        "measured_peak_bytes": result.measured_peak_bytes,
        "measured_with": result.measured_with,
        "trainable_parameters": result.trainable_parameters,
        "train_rows": plan.data.train_rows,
        "eval_rows": plan.data.eval_rows,
        "seed": plan.seed,
    }
