"""Use a finished run: score it on data, or ask it for predictions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from taskit.errors import DataError, RunError
from taskit.planning.plan import Plan

if TYPE_CHECKING:
    from taskit.data import Collator

PAIR = "\t"  # between the two sentences of one input, or an image and its prompt


@dataclass(frozen=True, slots=True)
class Prediction:
    """``answer`` is a label or a generated text; ``probability`` is None for a text."""

    input: str
    answer: str
    probability: float | None


def load_run(folder: str | Path) -> tuple[Plan, Any]:
    """The plan of a run and its backbone with the adapter, loaded as any PEFT user would.

    Raises:
        RunError: no run, or one that has no adapter yet.
    """
    from peft import PeftModel

    from taskit.backbone.loading import load_model
    from taskit.training.run_folder import RunFolder

    run = RunFolder(folder)
    plan = Plan.from_dict(run.read_json("plan.json"), str(run.path / "plan.json"))
    if not (run.adapter / "adapter_config.json").exists():
        raise RunError(f"The run in {run.path} has no adapter yet; finish it with taskit train --resume.")
    base = load_model(plan.backbone, task=plan.data.task, labels=plan.data.labels)
    return plan, PeftModel.from_pretrained(base, run.adapter).eval()


def evaluate_run(folder: str | Path, source: str | Path | None = None) -> tuple[str, float, int]:
    """(metric, value, rows) of a run on its own evaluation rows, or on all rows of ``source``.

    Raises:
        DataError: ``source`` is another task, or has labels that the run does not know.
    """
    import datasets
    from torch.utils.data import DataLoader

    from taskit.backbone.processors import make_collator
    from taskit.data import load
    from taskit.training.evaluation import evaluate, metric_of

    plan, model = load_run(folder)
    data = load(source or plan.data.source, columns=None if source else dict(plan.data.columns), seed=plan.seed)
    rows = data.evaluation
    if source:
        if (data.info.task, data.info.labels) != (plan.data.task, plan.data.labels):
            raise DataError(
                f"{source} is {data.info.task} with the labels {', '.join(data.info.labels) or 'none'}; "
                f"this run needs {plan.data.task} with {', '.join(plan.data.labels) or 'none'}."
            )
        rows = datasets.concatenate_datasets([data.train, data.evaluation])
    collator = make_collator(plan.backbone, plan.data.task, plan.training.max_length)
    loader = DataLoader(cast(Any, rows), batch_size=plan.training.batch_size, collate_fn=collator)
    return metric_of(plan.data.task), evaluate(model, loader, plan.data.task).value, len(rows)


def predict(folder: str | Path, inputs: Sequence[str]) -> tuple[Prediction, ...]:
    """One prediction for each input: an image file, a sentence, or a prompt; parted by a tab, a pair of sentences, or
    an image file and the prompt about it."""
    plan, model = load_run(folder)
    return _predict(plan, model, inputs)


def compare(folder: str | Path, given: str) -> tuple[Prediction, Prediction]:
    """The prediction for one input, and that of the same model with the LoRA switched off, a trained head left on."""
    plan, model = load_run(folder)
    (adapted,) = _predict(plan, model, [given])
    with _without_lora(model):
        (bare,) = _predict(plan, model, [given])
    return adapted, bare


def _predict(plan: Plan, model: Any, inputs: Sequence[str]) -> tuple[Prediction, ...]:
    from taskit.backbone.config import WRITING
    from taskit.backbone.processors import make_collator
    from taskit.training.generation import answer

    collator = make_collator(plan.backbone, plan.data.task, plan.training.max_length)
    if plan.data.task in WRITING:
        return tuple(Prediction(text, answer(model, collator, _row(plan, text)), None) for text in inputs)
    return tuple(_classify(plan, model, collator, _row(plan, text), text) for text in inputs)


@contextmanager
def _without_lora(model: Any) -> Iterator[None]:
    """PEFT's own ``disable_adapter`` would bring the untrained head back too, whose answers are chance."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _row(plan: Plan, text: str) -> Mapping[str, Any]:
    if plan.data.task == "text-generation":
        return {"prompt": text}
    first, _, second = text.partition(PAIR)
    if plan.data.modality == "text":
        return {"text": first, **({"text_pair": second} if "text_pair" in dict(plan.data.columns) else {})}
    if plan.data.modality == "image-text":
        return {"image": _open(first), "prompt": second}
    return {"image": _open(text)}


def _open(path: str) -> Any:
    from PIL import Image

    try:
        return Image.open(path).convert("RGB")
    except OSError as error:
        raise DataError(f"{path} is no image that can be read; give the path of a PNG or JPEG file.") from error


def _classify(plan: Plan, model: Any, collator: "Collator", row: Mapping[str, Any], text: str) -> Prediction:
    import torch

    batch = collator([{**row, "label": 0}])
    batch.pop("labels")
    with torch.no_grad():
        probabilities = model(**batch).logits[0].float().softmax(-1)
    best = int(probabilities.argmax())
    return Prediction(text, plan.data.labels[best], round(float(probabilities[best]), 4))
