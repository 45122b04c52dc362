"""What a task adds around its base model: the head, and the last linear that reads the final feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from taskit.backbone.config import WRITING
from taskit.backbone.target_modules import find_locations
from taskit.errors import BackboneError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


CHECKPOINT_KEYS = "checkpoint_keys"
"""The attribute of a loaded or empty model that names the tensors of its checkpoint, set by loading.py."""


def head_names(model: PreTrainedModel, task: str) -> tuple[str, ...]:
    """Full paths of the modules that `task` must train besides LoRA, for PEFT's modules_to_save.

    These are the children of the task model beside its base model, and poolers, unless the checkpoint
    already holds them (ModernBERT's "head"); the one with the final linear is made anew for each task
    and always among them.  Empty where text is written.

    >>> head_names(distilbert, "text-classification")
    ('pre_classifier', 'classifier')
    """
    if task in WRITING:
        return ()
    held = getattr(model, CHECKPOINT_KEYS, frozenset())
    final = _final_linear_name(model)
    names = [name for name in around_base(model) if _holds(name, final) or not _in_checkpoint(model, name, held)]
    return tuple(names)


def final_linear(model: PreTrainedModel) -> nn.Linear:
    """The last linear of a classification head: its input is the final feature x, its output the logits.

    Raises BackboneError for a model whose head ends otherwise.
    """
    return cast("nn.Linear", model.get_submodule(_final_linear_name(model)))


def trained_head(model: nn.Module) -> nn.Linear | None:
    """The final linear that PEFT keeps beside the original one in an adapted `model`; None where text is written."""
    from torch import nn

    copies = [
        module
        for name, module in model.named_modules()
        if ".modules_to_save." in name
        and isinstance(module, nn.Linear)
        and module.out_features == cast("PreTrainedModel", model).config.num_labels
    ]
    return copies[-1] if copies else None


def around_base(model: PreTrainedModel) -> list[str]:
    """Full paths of everything with parameters that is not the base model proper: heads and poolers."""
    blocks = {location.name.split(".")[0] for location in find_locations(model)}
    children = [name for name, child in model.named_children() if name not in blocks and _has_parameters(child)]
    heads = [name for name in children if model.get_submodule(name) is not model.base_model]
    poolers = [
        name
        for name, module in model.named_modules()
        if name.split(".")[-1] == "pooler" and name not in heads and _has_parameters(module)
    ]
    return poolers + heads


def _final_linear_name(model: PreTrainedModel) -> str:
    from torch import nn

    found = [
        f"{head}.{name}".rstrip(".")
        for head in around_base(model)
        for name, module in model.get_submodule(head).named_modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels
    ]
    if not found:
        raise BackboneError(f"{type(model).__name__} has no linear classification head: choose another backbone.")
    return found[-1]


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _holds(name: str, inner: str) -> bool:
    return inner == name or inner.startswith(f"{name}.")


def _in_checkpoint(model: PreTrainedModel, name: str, keys: frozenset[str]) -> bool:
    """Whether `keys` have every parameter of module `name`, under whatever prefix the base model has there."""
    leaf = name.split(".")[-1]
    wanted = [f"{leaf}.{parameter}" for parameter, _ in model.get_submodule(name).named_parameters()]
    return all(any(_ends_with(key, ending) for key in keys) for ending in wanted)


def _ends_with(key: str, ending: str) -> bool:
    return key == ending or key.endswith(f".{ending}")
