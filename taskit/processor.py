"""What turns raw inputs into a backbone's own: its tokenizer or its image processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskit.backbone import modality_of_task, quiet
from taskit.errors import BackboneError
from taskit.source import Backbone, source_of

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")


def load_processor(backbone: Backbone, *, task: str) -> PreTrainedTokenizerBase | BaseImageProcessor:
    """What turns raw inputs into the model's: a fast tokenizer with a padding token, or a PIL image processor.

    Raises BackboneError when the backbone brings none.
    """
    image = modality_of_task(task) == "image"
    try:
        with quiet():
            return _image_processor(backbone) if image else _tokenizer(backbone)
    except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        missing = "image processor (preprocessor_config.json)" if image else "tokenizer (tokenizer.json)"
        raise BackboneError(f'"{backbone.id}" has no usable {missing}: add it to its folder.') from error


def _tokenizer(backbone: Backbone) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    source = source_of(backbone)
    # without these files Transformers 5 returns an empty tokenizer that turns every text into nothing
    if not any((source / file).exists() for file in _TOKENIZER_FILES):
        raise OSError("no tokenizer files")
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token is None:  # GPT-2 and Llama come without one, and batches need it
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _image_processor(backbone: Backbone) -> BaseImageProcessor:
    """The PIL processor of the type that the backbone names.

    AutoImageProcessor cannot be used: in Transformers 5.17 it refuses to work without torchvision,
    even with backend="pil".
    """
    import transformers

    source = source_of(backbone)
    settings, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source, local_files_only=True)
    name = settings.get("image_processor_type") or settings["feature_extractor_type"]
    family = name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    return getattr(transformers, f"{family}Pil").from_pretrained(source, local_files_only=True)
