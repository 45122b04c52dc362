"""What a backbone's configuration says: its modality, and the Auto class of Transformers for a task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskit.backbone.sources import Backbone, source_of
from taskit.errors import BackboneError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TASKS = {
    "image-classification": "image",
    "text-classification": "text",
    "text-generation": "text",
    "image-text-to-text": "image-text",
}
"""Each task that a backbone can be loaded for, and its modality."""

WRITING = frozenset({"text-generation", "image-text-to-text"})
"""The tasks whose models write text, with the head that they come with."""


def modality_of_task(task: str) -> str:
    """ "image", "text" or "image-text"; raises BackboneError for an unknown task."""
    if task not in TASKS:
        raise BackboneError(f'The task "{task}" is not known: choose from {", ".join(TASKS)}.')
    return TASKS[task]


def modality_of(backbone: Backbone) -> str:
    """ "image", "text" or "image-text", by the tasks that Transformers can use the model type for.

    Raises BackboneError when it can do none of TaskIT's tasks.
    """
    config = read_config(backbone)
    for task, modality in TASKS.items():
        if auto_class(config, task) is not None:
            return modality
    raise BackboneError(
        f'"{backbone.id}" is a {config.model_type} model, which classifies no images or text and writes none: '
        "choose another backbone."
    )


def read_config(backbone: Backbone) -> PreTrainedConfig:
    """Its config.json; raises BackboneError where the installed Transformers does not know the model type."""
    from transformers import AutoConfig

    try:
        with quiet():
            return AutoConfig.from_pretrained(source_of(backbone), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(
            f'The config.json of "{backbone.id}" cannot be used ({first_line(error)}): choose a model type that '
            "the installed Transformers knows without remote code."
        ) from error


def auto_class(config: PreTrainedConfig, task: str) -> Any:
    """The Auto class for `task`, or None if Transformers has no model of this type for it."""
    import transformers as t

    modality_of_task(task)
    kind = type(config)
    if task == "image-classification":
        return t.AutoModelForImageClassification if kind in t.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING else None
    if task == "text-classification":
        return t.AutoModelForSequenceClassification if kind in t.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING else None
    if task == "image-text-to-text":
        return t.AutoModelForImageTextToText if kind in t.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING else None
    if config.is_encoder_decoder:
        return t.AutoModelForSeq2SeqLM if kind in t.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING else None
    # BERT has a causal class too, but was trained to see both sides, unless its configuration says otherwise
    sees_both_sides = kind in t.MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    return t.AutoModelForCausalLM if kind in t.MODEL_FOR_CAUSAL_LM_MAPPING and not sees_both_sides else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Transformers' load report and bars away: the user sees TaskIT's own lines only."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
