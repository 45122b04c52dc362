"""What turns raw inputs into a backbone's own: its tokenizer, its image processor, or both in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskit.backbone.config import modality_of_task, quiet
from taskit.backbone.sources import Backbone, source_of
from taskit.data import Collator
from taskit.errors import BackboneError, PlanError

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase, ProcessorMixin

_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")


def load_processor(backbone: Backbone, *, task: str) -> PreTrainedTokenizerBase | BaseImageProcessor | ProcessorMixin:
    """What turns raw inputs into the model's: a fast tokenizer with a padding token, a PIL image processor, or both.

    Raises BackboneError when the backbone brings none.
    """
    load, missing = {
        "image": (_image_processor, "image processor (preprocessor_config.json)"),
        "text": (_tokenizer, "tokenizer (tokenizer.json)"),
        "image-text": (_visual_processor, "processor of images with text (processor_config.json)"),
    }[modality_of_task(task)]
    try:
        with quiet():
            return load(backbone)
    except (OSError, ValueError, KeyError, AttributeError, ImportError, TypeError) as error:
        raise BackboneError(f'"{backbone.id}" has no usable {missing}: add it to its folder.') from error


def make_collator(backbone: Backbone, task: str, max_length: int | None) -> Collator:
    """What makes batches of rows for ``backbone``; raises PlanError for a ``max_length`` beyond what it reads."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source_of(backbone), local_files_only=True)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if max_length is not None and positions is not None and max_length > positions:
        raise PlanError(f"max_length is {max_length}, but {backbone.id} reads {positions} tokens; give at most that.")
    processor = load_processor(backbone, task=task)
    return Collator(task, processor, max_length, encoder_decoder=bool(config.is_encoder_decoder))


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


def _visual_processor(backbone: Backbone) -> ProcessorMixin:
    """The processor of the model's type around the tokenizer and the PIL image processor, videos left out.

    AutoProcessor cannot be used: it insists on a video processor, which needs torchvision.
    """
    from transformers import AutoConfig
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    source = source_of(backbone)
    config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    family: Any = PROCESSOR_MAPPING[type(config)]
    parts = {"image_processor": _image_processor(backbone), "tokenizer": _tokenizer(backbone)}
    names = [name for name in family.get_attributes() if name in parts]
    # it takes as many parts as it says that it has
    still = type(family.__name__, (family,), {"get_attributes": classmethod(lambda _: names)})
    settings, options = family.get_processor_dict(source, local_files_only=True)
    given = [parts.get(name) for name in family.get_attributes()]
    return still.from_args_and_dict(given, settings, **options)
