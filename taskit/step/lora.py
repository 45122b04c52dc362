"""Put LoRA into a model exactly where a strategy says, as one plain PEFT configuration."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from taskit.step.parametrization import PLAIN, Parametrization

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

PEFT_TASKS = {
    "text-classification": "SEQ_CLS",
    "text-generation": "CAUSAL_LM",
    "image-text-to-text": "CAUSAL_LM",
    "image-classification": None,
}
SCALING = 1  # c in alpha = c * r: every location keeps the same scaling whatever its rank


def lora_config(model: "PreTrainedModel", ranks: Mapping[str, int], heads: Sequence[str], task: str) -> "LoraConfig":
    """The PEFT configuration of a strategy: location name -> rank, locations of rank 0 left out.

    PEFT reads the keys of its patterns as regular expressions and takes the first that matches, so
    every key is one escaped full path, anchored at its start.  Both patterns are written, so that a
    reader which knows only ``r`` and ``lora_alpha`` still gets the scaling right.
    """
    from peft import LoraConfig

    inserted = {name: rank for name, rank in ranks.items() if rank > 0}
    largest = max(inserted.values())
    return LoraConfig(
        r=largest,
        lora_alpha=SCALING * largest,
        target_modules=_targets(model, list(inserted)),
        rank_pattern={"^" + re.escape(name): rank for name, rank in inserted.items()},
        alpha_pattern={"^" + re.escape(name): SCALING * rank for name, rank in inserted.items()},
        modules_to_save=list(heads) or None,
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else PEFT_TASKS[task],
    )


def _targets(model: "PreTrainedModel", names: list[str]) -> str | list[str]:
    """One expression of full paths; a list of them for a mixture of experts.

    There PEFT keeps only the last name of what an expression matches, and would adapt every layer.  A list, which
    it matches by endings, it leaves alone.
    """
    experts = any(".experts." in name and p.dim() == 3 for name, p in model.named_parameters())
    return names if experts else "|".join(map(re.escape, names))


def adapt(
    model: "PreTrainedModel",
    ranks: Mapping[str, int],
    heads: Sequence[str],
    task: str,
    parametrization: Parametrization = PLAIN,
) -> "PreTrainedModel | PeftModel":
    """Freeze ``model``, insert the strategy, parametrized as it is trained, and make the heads trainable.

    A strategy that inserts nothing trains the heads alone and needs no PEFT around the model.
    Adapters take the backbone's dtype: fp32 adapters over a bf16 base would keep an fp32 copy of
    every LoRA input (measured a third more activation memory).
    """
    model.requires_grad_(False)
    if not any(ranks.values()):
        for head in heads:
            model.get_submodule(head).requires_grad_(True)
        return model
    from peft import get_peft_model

    config = lora_config(model, parametrization.widths(ranks), heads, task)
    targets = config.target_modules
    patterns = dict(config.rank_pattern or {}), dict(config.alpha_pattern or {})
    # PEFT tries its patterns one by one at every module, minutes for hundreds of them; merged they are a handful
    config.rank_pattern, config.alpha_pattern = map(_merged, patterns)
    adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    config.rank_pattern, config.alpha_pattern = patterns
    config.target_modules = targets if isinstance(targets, str) else sorted(targets or ())  # PEFT shortens lists
    for name, parameter in adapted.named_parameters():
        if ".lora_" in name:  # PEFT leaves them in float32 beside meta and integer weights
            parameter.data = parameter.data.to(model.dtype)
    parametrization.insert(adapted, ranks)
    return adapted


def _merged(pattern: Mapping[str, int]) -> dict[str, int]:
    """The same pattern with one alternative of paths for each value."""
    paths: dict[int, list[str]] = {}
    for path, value in pattern.items():
        paths.setdefault(value, []).append(path)
    return {f"(?:{'|'.join(alike)})": value for value, alike in paths.items()}
