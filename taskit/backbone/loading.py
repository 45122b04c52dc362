"""Load a backbone for a task with Transformers' Auto classes: weights, or an empty twin.

Nothing from outside is executed: no remote code, and weights from safetensors only.
"""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from taskit.backbone.config import WRITING, auto_class, modality_of, modality_of_task, quiet, read_config
from taskit.backbone.heads import CHECKPOINT_KEYS, around_base
from taskit.backbone.processors import load_processor
from taskit.backbone.sources import Backbone, source_of
from taskit.backbone.target_modules import find_locations
from taskit.errors import BackboneError, first_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

_HEAD_SEED = 0  # a new head starts the same in every process, so plans and runs can be compared


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
                f'"{backbone.id}" cannot be loaded ({first_line(error)}): check its files.'
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


def _prepare(backbone: Backbone, task: str, labels: tuple[str, ...]) -> tuple[PreTrainedConfig, Any]:
    """The configuration for `task` and `labels`, and the Auto class that builds it."""
    config = read_config(backbone)
    auto = auto_class(config, task)
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


def _padding(backbone: Backbone, config: PreTrainedConfig) -> int | None:
    """The tokenizer's padding id, by which decoders find the last token of a row; else the end-of-text id."""
    with suppress(BackboneError):
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
