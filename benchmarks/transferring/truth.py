"""What training really shows: a full LoRA, what is lost without each of its modules, what each gains alone."""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from benchmarks.transferring.bench import Batch, Bench, accuracy, logits
from taskit.backbone.target_modules import Location

Tell = Callable[[str], None]


def learn(bench: Bench, folder: Path, on_progress: Tell) -> None:
    """Train LoRA r = 8 everywhere into ``folder`` as a PEFT adapter."""
    model = bench.train(bench.full())
    model.peft_config["default"].base_model_name_or_path = bench.family.backbone
    on_progress(f"LoRA everywhere {accuracy(model, bench.validation):.3f} on validation rows")
    model.save_pretrained(folder, save_embedding_layers=False)


def ablate(bench: Bench, folder: Path, scored: list[Batch], on_progress: Tell) -> None:
    """Take each module from the adapter in ``folder``, and put truth.npz of what is lost beside it.

    truth.npz: ``logits`` (1 + locations, n, classes) of the whole adapter and without each location, ``start``
    (n, classes) of the fitted head alone, ``labels`` (n,), and ``held_logits`` and ``held_labels`` of the
    validation rows for calibration.
    """
    model = PeftModel.from_pretrained(copy.deepcopy(bench.model), str(folder)).eval()
    start, labels = logits(bench.model, scored)
    held, held_labels = logits(model, bench.validation)
    rows = torch.cat([ablated(model, bench.locations, batch) for batch in scored], 1)
    on_progress(f"head {correct(start, labels):.3f}, LoRA everywhere {correct(rows[0], labels):.3f}")
    np.savez(
        folder / "part.npz",
        logits=rows,
        start=start,
        labels=labels,
        held_logits=held,
        held_labels=held_labels,
    )
    (folder / "part.npz").rename(folder / "truth.npz")


def insert(bench: Bench, folder: Path, epochs: int, scored: list[Batch], on_progress: Tell) -> None:
    """Train the head by itself, and with LoRA r = 8 at each location alone.

    insertion.npz: ``logits`` (1 + locations, n, classes) of the one and of the others, and ``labels`` (n,).
    """
    rows, labels = [], torch.empty(0)
    for ranks in ({}, *({place.name: 8} for place in bench.locations)):
        found, labels = logits(bench.train(ranks, epochs=epochs), scored)
        rows.append(found)
        on_progress(f"{next(iter(ranks), 'head')} alone {correct(found, labels):.3f}")
    np.savez(folder / "part.npz", logits=torch.stack(rows), labels=labels)
    (folder / "part.npz").rename(folder / "insertion.npz")


@torch.no_grad()
def ablated(model: Any, locations: Sequence[Location], batch: Batch) -> torch.Tensor:
    """Logits (1 + locations, n, classes) of the whole adapter and without each location.

    Blocks before the location are not computed again: they give back what they gave with the whole adapter.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    blocks = {str(re.match(r".*?\.\d+(?=\.)", place.name)[0]): None for place in locations}
    layers = [model.get_submodule(f"base_model.model.{path}") for path in blocks]
    outputs: list[Any] = []
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(lambda _, __, output: outputs.append(output)).remove)
        rows = [model(**inputs).logits]
    for place in locations:
        with ExitStack() as stack:
            stack.enter_context(without(model, place.name))
            for layer, output in list(zip(layers, outputs, strict=True))[: place.block]:
                layer.forward, original = partial(_give, output), layer.forward
                stack.callback(setattr, layer, "forward", original)
            rows.append(model(**inputs).logits)
    return torch.stack(rows).float()


def _give(output: Any, *_: Any, **__: Any) -> Any:
    return output


@contextmanager
def without(model: Any, location: str) -> Iterator[None]:
    """The adapter without its module at ``location``."""
    layer = model.get_submodule(f"base_model.model.{location}")
    assert isinstance(layer, LoraLayer)
    scaling = layer.scaling["default"]
    layer.scaling["default"] = 0.0
    try:
        yield
    finally:
        layer.scaling["default"] = scaling


def correct(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return float((scores.argmax(-1) == labels).float().mean())
