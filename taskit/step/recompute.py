"""Blocks recomputed in the backward pass of a frozen model, so that a gradient needs the memory of one block."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from taskit.errors import PlanError

PEFT_PREFIX = "base_model.model."


def use_checkpointing(model: Any, blocks: Collection[str] | None = None) -> None:
    """Recompute ``blocks`` (paths in the backbone; None for all) in the backward pass.

    No dropout is active, so no RNG state is kept or checked.

    Raises:
        PlanError: the model cannot, or has no such block.
    """
    options = {"use_reentrant": False, "preserve_rng_state": False, "determinism_check": "none"}
    try:
        model.gradient_checkpointing_enable(options)
    except ValueError as error:
        raise PlanError(
            "This backbone cannot compute its blocks again in the backward pass; plan with "
            "--no-gradient-checkpointing."
        ) from error
    # Transformers asks for the gradient of the embeddings, which only reentrant checkpoints need: without it the
    # backward pass ends at the first LoRA.
    model.disable_input_require_grads()
    if blocks is None:
        return
    found = named_blocks(model)
    stranger = next((name for name in blocks if name not in found), None)
    if stranger is not None:
        raise PlanError(f"The plan recomputes the block {stranger}, which the backbone does not have; remove it.")
    chosen = {found[name] for name in blocks}
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):  # those around others, a Swin's stages, too
            module.gradient_checkpointing = module in chosen


def named_blocks(model: Any) -> dict[str, GradientCheckpointingLayer]:
    """`blocks_of` a model by their paths in the backbone, also where PEFT is around it."""
    blocks = set(blocks_of(model))
    return {path.removeprefix(PEFT_PREFIX): module for path, module in model.named_modules() if module in blocks}


def blocks_of(model: PreTrainedModel) -> list[GradientCheckpointingLayer]:
    """The blocks of which the model is a pile, in the order in which it names them."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    outer = {layer for layer in layers if any(part in layers for part in [*layer.modules()][1:])}
    return [layer for layer in layers if layer not in outer]  # a Swin has blocks inside blocks


@contextmanager
def recomputed(model: PreTrainedModel) -> Iterator[bool]:
    """Whether blocks of ``model`` are recomputed in the backward passes inside; afterwards it is what it was."""
    if not model.supports_gradient_checkpointing:
        yield False
        return
    blocks = blocks_of(model)
    training = [block.training for block in blocks]
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    cached = [getattr(config, "use_cache", False) for config in configs]
    for config in configs:
        config.use_cache = False  # a recomputed block would fill it twice
    use_checkpointing(model)
    try:
        for block in blocks:
            block.training = True  # what it asks for before it recomputes; its parts stay as they are
        yield bool(blocks)
    finally:
        model.gradient_checkpointing_disable()
        for config, before in zip(configs, cached, strict=True):
            config.use_cache = before
        for block, mode in zip(blocks, training, strict=True):
            block.training = mode
