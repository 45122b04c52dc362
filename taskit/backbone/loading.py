"""Load a backbone for a task with Transformers' Auto classes: weights, or an empty twin.

Nothing from outside is executed: no remote code, and weights from safetensors only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from taskit.backbone.heads import CHECKPOINT_KEYS, WRITING, around_base
from taskit.backbone.heads import final_linear as final_linear
from taskit.backbone.heads import head_names as head_names
from taskit.backbone.sources import Backbone as Backbone
from taskit.backbone.sources import bundled_names as bundled_names
from taskit.backbone.sources import find_backbone as find_backbone
from taskit.backbone.sources import source_of as source_of
from taskit.backbone.target_modules import Location as Location
from taskit.backbone.target_modules import find_locations as find_locations
from taskit.errors import BackboneError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

TASKS = {
    "image-classification": "image",
    "text-classification": "text",
    "text-generation": "text",
    "image-text-to-text": "image-text",
}
"""Each task that a backbone can be loaded for, and its modality."""

_HEAD_SEED = 0  # a new head starts the same in every process, so plans and runs can be compared


def modality_of(backbone: Backbone) -> str:
    """ "image", "text" or "image-text", by the tasks that Transformers can use the model type for.

    Raises BackboneError when it can do none of TaskIT's tasks.
    """
    config = _read_config(backbone)
    for task, modality in TASKS.items():
        if _auto_class(config, task) is not None:
            return modality
    raise BackboneError(
        f'"{backbone.id}" is a {config.model_type} model, which classifies no images or text and writes none: '
        "choose another backbone."
    )


def require_task(backbone: Backbone, task: str) -> None:
    """Raises BackboneError when the backbone is of another modality than the task, or cannot do it."""
    _prepare(backbone, task, ("", " "))


def load_model(
    backbone: Backbone, *, task: str, labels: tuple[str, ...], device: str | torch.device = "cpu"
) -> PreTrainedModel:
    """The pretrained model for `task`, frozen and in eval mode, its head made anew for `labels`.

    The same call gives the same weights.  `labels` are ignored where text is written.

    Raises BackboneError when the backbone cannot do the task, or its weights do not fit its configuration.
    """
    import torch

    source, keys = source_of(backbone), _checkpoint_keys(backbone)
    config, auto = _prepare(backbone, task, labels)
    options = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    options |= {"ignore_mismatched_sizes": True, "output_loading_info": True, **_kernels(backbone)}
    if backbone.quantization:
        empty = empty_model(backbone, task=task, labels=labels)
        options |= {"quantization_config": quantization_config(backbone, empty), "device_map": {"": device}}
    devices = [device] if torch.device(device).type == "cuda" else []
    with quiet(), torch.random.fork_rng(devices):
        torch.manual_seed(_HEAD_SEED)
        try:
            model, report = auto.from_pretrained(source, config=config, **options)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise BackboneError(
                f'"{backbone.id}" cannot be loaded ({_first_line(error)}): check its files.'
            ) from error
    _require_complete(backbone, model, report)
    if not backbone.quantization:
        model.to(device)
    elif backbone.quantization == "4bit":
        _keep_unpacked(model)
    return _finish(model, backbone, keys)


def empty_model(backbone: Backbone, *, task: str, labels: tuple[str, ...]) -> PreTrainedModel:
    """The model that `load_model` gives, on the meta device: modules, dtype and attention kernel, no weights.

    Raises BackboneError when the model has no such attention kernel.

    Quantisation changes only how weights are stored, so the empty model is not quantised.
    """
    import torch

    config, auto = _prepare(backbone, task, labels)
    try:
        with quiet(), torch.device("meta"):
            model = as_loaded(auto.from_config(config, **_kernels(backbone)))
    except ValueError as error:
        if backbone.attention is None:
            raise
        raise BackboneError(
            f'"{backbone.id}" cannot compute its attention with {backbone.attention}: leave --attention out.'
        ) from error
    return _finish(model, backbone, _checkpoint_keys(backbone))


def _kernels(backbone: Backbone) -> dict[str, Any]:
    """Options of from_pretrained and of from_config."""
    import torch

    attention = {"attn_implementation": backbone.attention} if backbone.attention else {}
    return {"dtype": getattr(torch, backbone.dtype), **attention}


def as_loaded(model: PreTrainedModel) -> PreTrainedModel:
    """``model``, made from a configuration, with the parts in float32 that `from_pretrained` keeps so in float16."""
    for part, dtype in model._get_dtype_plan(model.dtype).items():
        for name, parameter in model.named_parameters():
            if f".{part}." in f".{name}.":
                parameter.data = parameter.data.to(dtype)
    return model


def _read_config(backbone: Backbone) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        with quiet():
            return AutoConfig.from_pretrained(source_of(backbone), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(
            f'The config.json of "{backbone.id}" cannot be used ({_first_line(error)}): choose a model type that '
            "the installed Transformers knows without remote code."
        ) from error


def _prepare(backbone: Backbone, task: str, labels: tuple[str, ...]) -> tuple[PreTrainedConfig, Any]:
    """The configuration for `task` and `labels`, and the Auto class that builds it."""
    config = _read_config(backbone)
    auto = _auto_class(config, task)
    if auto is None:
        kind = f"{modality_of(backbone)} model ({config.model_type})"
        raise BackboneError(f'"{backbone.id}" is a {kind} and cannot do {task}: choose another backbone.')
    # of several classes for one type, Transformers takes the first, whatever the checkpoint was trained
    # for; for DeiT that is the one with a loss
    config.architectures = []
    _without_dropout(config)
    if task not in WRITING:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
        config.problem_type = "single_label_classification"
    if modality_of_task(task) != "image" and getattr(config.get_text_config(), "pad_token_id", None) is None:
        config.get_text_config().pad_token_id = _padding(backbone, config)
    return config, auto


def _without_dropout(config: PreTrainedConfig) -> None:
    """Switch the backbone's own dropout off: it would keep a mask for every layer, and drive attention on a
    CPU into the kernel that keeps the attention matrix.  LoRA on few locations regularises enough."""
    parts = (config, config.get_text_config(), getattr(config, "vision_config", config))
    for part in {id(part): part for part in parts}.values():
        for name, value in part.to_dict().items():
            if "drop" in name and isinstance(value, float):
                setattr(part, name, 0.0)


def _auto_class(config: PreTrainedConfig, task: str) -> Any:
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


def modality_of_task(task: str) -> str:
    if task not in TASKS:
        raise BackboneError(f'The task "{task}" is not known: choose from {", ".join(TASKS)}.')
    return TASKS[task]


def _padding(backbone: Backbone, config: PreTrainedConfig) -> int | None:
    """The tokenizer's padding id, by which decoders find the last token of a row; else the end-of-text id."""
    with suppress(BackboneError):
        from taskit.backbone.processors import load_processor

        processor: Any = load_processor(backbone, task="text-classification")
        return processor.pad_token_id
    end = getattr(config.get_text_config(), "eos_token_id", None)
    return end[0] if isinstance(end, list) else end


def quantization_config(backbone: Backbone, model: PreTrainedModel) -> Any:
    """How bitsandbytes stores the base of ``model``; heads are trained, so they keep their precision.

    Raises BackboneError when bitsandbytes is not installed.
    """
    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise BackboneError(f"Loading in {backbone.quantization} needs bitsandbytes: run pip install bitsandbytes.")
    heads = around_base(model)
    if backbone.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=heads)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, backbone.dtype),
        llm_int8_skip_modules=heads,
    )


def _keep_unpacked(model: PreTrainedModel) -> None:
    """Let 4-bit weights stay as they are on processors with AVX512-BF16.

    There bitsandbytes repacks them for good in the first evaluation: a layer passes no gradient from then on, and one
    whose inputs are no multiple of its block size fails.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _require_complete(backbone: Backbone, model: PreTrainedModel, report: dict[str, Any]) -> None:
    """Refuse random weights in the blocks, which Transformers would only warn of."""
    mismatched = (key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])
    fresh = {key.rpartition(".")[0] for key in (*report["missing_keys"], *mismatched)}
    lacking = [location.name for location in find_locations(model, vision_tower=True) if location.name in fresh]
    if lacking:
        raise BackboneError(
            f'The weights of "{backbone.id}" do not fit its config.json ({lacking[0]}): fetch it again.'
        )


def _finish(model: PreTrainedModel, backbone: Backbone, keys: frozenset[str]) -> PreTrainedModel:
    """Freeze the model, name it by its id instead of a path of this machine, and note what its checkpoint holds."""
    setattr(model, CHECKPOINT_KEYS, keys)
    model.name_or_path = model.config._name_or_path = backbone.id
    return model.requires_grad_(False).eval()


def _checkpoint_keys(backbone: Backbone) -> frozenset[str]:
    """The names of all tensors in the checkpoint, from the headers of its files."""
    from safetensors import SafetensorError, safe_open

    keys = set()
    for path in source_of(backbone).glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                keys.update(file.keys())
        except SafetensorError as error:
            raise BackboneError(f'The {path.name} of "{backbone.id}" is broken ({error}): get it again.') from error
    return frozenset(keys)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


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
