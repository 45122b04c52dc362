"""The candidate locations K: every projection matrix in the repeated blocks of a Transformers model.

Nothing here is a table of architectures.  Blocks are found by structure (lists of modules that hold
an attention), and roles by the dozen names that Transformers uses for each kind of projection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_ATTENTION_NAMES = {
    "q": "q q_proj query q_lin q_attn q_head wq query_proj projection_query",
    "k": "k k_proj key k_lin k_head wk key_proj projection_key",
    "v": "v v_proj value v_lin v_head wv value_proj projection_value",
    "qkv": "qkv qkv_proj c_attn wqkv query_key_value in_proj",
    "o": "o o_proj out_proj out_lin wo dense c_proj proj post_proj output projection_layer",
}
_MLP_NAMES = {
    "gate": "gate_proj wi_0",
    "up": "up_proj wi_1 w3",
    "gate_up": "gate_up_proj",
    "down": "down_proj",
    "fc1": "fc1 lin1 linear1 linear_1 dense1 c_fc wi w1 weights_in fc_in dense_h_to_4h ffn input_linear layer_1"
    " intermediate.dense",
    "fc2": "fc2 lin2 linear2 linear_2 dense2 c_proj wo w2 weights_out fc_out dense_4h_to_h ffn_output output_linear"
    " layer_2 output.dense",
}
_ATTENTION_ROLES = {name: role for role, names in _ATTENTION_NAMES.items() for name in names.split()}
_MLP_ROLES = {name: role for role, names in _MLP_NAMES.items() for name in names.split()}

# The order of use inside one attention or one MLP; a role that is not named stands in the middle.
_ORDER = {"q": 0, "qkv": 0, "k": 1, "v": 2, "o": 9, "gate": 0, "gate_up": 0, "fc1": 0, "up": 1, "fc2": 9, "down": 9}

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_CROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)
# Routers of experts, and nets that make position biases, are no projections of the hidden states.
_NOT_A_PROJECTION = re.compile(r"router|^gate$|_gate$|position_bias|^pos_|^rel_")
# What Transformers calls the parts of a vision-language model (PreTrainedModel.get_encoder and get_decoder).
_LANGUAGE = frozenset({"language_model", "text_model"})
_VISION = frozenset({"vision_tower", "visual", "vision_model", "vision_encoder", "image_tower"})
# PEFT refuses these model types' out_proj, because their kernels read its weight without calling it.
_MAMBA = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}


@dataclass(frozen=True, slots=True)
class Location:
    """One projection matrix that a LoRA can be added to."""

    name: str
    """Full module path inside the model, such as "vit.layers.3.mlp.fc1"."""
    block: int
    """Index of the repeated block, 0 nearest the input; it never decreases in forward order."""
    role: str
    """q k v qkv o, gate up down gate_up fc1 fc2, cross_… for cross-attention, or the module's own name."""
    in_features: int
    out_features: int


def find_locations(model: nn.Module, vision_tower: bool = False) -> tuple[Location, ...]:
    """Every projection matrix that LoRA can adapt inside the repeated blocks of `model`, in forward order.

    Blocks are counted through the stages of a Swin and through encoder, then decoder, of a T5.  Heads,
    embeddings, patch projections and mergings, poolers, routers and position-bias nets are left out.
    Of a model that holds a language model beside other towers (Janus-Pro), only the language model counts, and before
    it, where the ``vision_tower`` is asked for, the encoder of its images.
    Experts that Transformers 5 stores as one three-dimensional parameter (Mixtral) are no modules, so
    LoRA cannot reach them by name: of such a block only the attention, and a shared expert, are candidates.
    Where PEFT takes the names of a shared expert for those of the experts, it is left out too.
    A module shared by all layers (ALBERT) is one location.

    >>> find_locations(ViTModel(ViTConfig()))[4]
    Location(name='layers.0.mlp.fc1', block=0, role='fc1', in_features=768, out_features=3072)
    """
    found = []
    for index, (path, block) in enumerate(_blocks(model, vision_tower)):
        for name, role, matrix in _in_order(_matrices(block)):
            found.append(Location(f"{path}.{name}", index, role, *_features(matrix)))
    if getattr(getattr(model, "config", None), "model_type", None) in _MAMBA:
        found = [location for location in found if not location.name.endswith(".out_proj")]
    names = {location.name.rpartition(".")[2]: location.name for location in found}
    stolen = {leaf for leaf, name in names.items() if not _peft_keeps(model, name)}
    return tuple(location for location in found if location.name.rpartition(".")[2] not in stolen)


def _peft_keeps(model: nn.Module, name: str) -> bool:
    """Whether an adapter of module `name` can be loaded again.

    Of many mixtures of experts (DeepSeek-V3, Qwen3-MoE) PEFT reads gate_proj, up_proj and down_proj, wherever they
    stand, as the experts of an older Transformers, and adapts those instead.
    """
    if not any(".experts." in path and p.dim() == 3 for path, p in model.named_parameters()):
        return True
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # one of two names that it fuses
        return False
    return name in (config.target_modules or ())


def _blocks(model: nn.Module, vision_tower: bool) -> Iterator[tuple[str, nn.Module]]:
    """Path and module of each repeated block, in forward order."""
    language, vision = (_first_named(model, names) for names in (_LANGUAGE, _VISION))
    if vision_tower and vision and language:
        yield from _blocks_below(model, vision)
    yield from _blocks_below(model, language or "")


def _first_named(model: nn.Module, names: frozenset[str]) -> str | None:
    return next((name for name, _ in model.named_modules() if name.split(".")[-1] in names), None)


def _blocks_below(model: nn.Module, root: str) -> Iterator[tuple[str, nn.Module]]:
    stacks = list(_outer_stacks(model.get_submodule(root), root))
    attending = [stack for stack in stacks if any(_attends(entry) for _, entry in stack)]
    for stack in attending or stacks:  # a model without any attention, such as Mamba, has blocks too
        for path, entry in stack:
            yield from _inner_blocks(entry, path) or [(path, entry)]


def _outer_stacks(module: nn.Module, path: str) -> Iterator[list[tuple[str, nn.Module]]]:
    """The outermost lists of modules that hold projections, each as (path, entry) pairs."""
    for name, child in module.named_children():
        where = f"{path}.{name}" if path else name
        if _is_list(child) and any(_matrices(entry) for entry in child.children()):
            yield [(f"{where}.{key}", entry) for key, entry in child.named_children()]
        else:
            yield from _outer_stacks(child, where)


def _inner_blocks(stage: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    """The blocks of a stage (Swin); none if `stage` is a block itself.

    A list inside a block differs from the blocks inside a stage: experts have no attention, and the
    sublayers of a T5 block are of different classes.
    """
    blocks = []
    for name, child in stage.named_modules():
        entries = list(child.named_children()) if _is_list(child) else []
        if entries and len({type(entry) for _, entry in entries}) == 1 and all(_is_block(e) for _, e in entries):
            where = f"{path}.{name}" if name else path
            blocks += [(f"{where}.{key}", entry) for key, entry in entries]
    return blocks


def _is_list(module: nn.Module) -> bool:
    from torch import nn

    return isinstance(module, (nn.ModuleList, nn.Sequential))


def _is_block(module: nn.Module) -> bool:
    """Whether `module` holds an attention and something beside it."""
    containers = {_container(name) for name in _matrices(module)}
    return _attends(module) and len(containers) > 1


def _attends(module: nn.Module) -> bool:
    return any(role.removeprefix("cross_") in ("q", "k", "v", "qkv") for _, role, _ in _in_order(_matrices(module)))


def _matrices(block: nn.Module) -> dict[str, nn.Module]:
    """The projections below `block` by relative path, in the order of registration.

    8-bit and 4-bit linears of bitsandbytes are subclasses of nn.Linear.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    found = {}
    for name, module in block.named_modules():
        # nn.MultiheadAttention reads the weight of its out_proj without calling it
        inside_multihead = isinstance(block.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention)
        skipped = inside_multihead or any(_NOT_A_PROJECTION.search(part) for part in name.split("."))
        if name and isinstance(module, (nn.Linear, Conv1D)) and not skipped:
            found[name] = module
    return found


def _features(matrix: Any) -> tuple[int, int]:
    """Input and output width; GPT-2's Conv1D keeps its weight as (in, out)."""
    if hasattr(matrix, "in_features"):
        return matrix.in_features, matrix.out_features
    rows, columns = matrix.weight.shape
    return rows, columns


def _container(name: str) -> str:
    """The path of the attention or MLP that the projection `name` belongs to."""
    parts = name.split(".")[:-1]
    for depth, part in enumerate(parts):
        if _ATTENTION.search(part):
            return ".".join(parts[: depth + 1])
    return ".".join(parts)


def _in_order(matrices: dict[str, nn.Module]) -> list[tuple[str, str, nn.Module]]:
    """(path, role, module) in forward order.

    Attentions and MLPs stand as registered, but an MLP that is registered first (Nomic, Bamba) still
    follows the attention; within each the roles decide, for CLIP registers k before q.
    """
    containers: dict[str, dict[str, nn.Module]] = {}
    for name, matrix in matrices.items():
        containers.setdefault(_container(name), {})[name] = matrix
    mixing, mlp = [], []
    for path, members in containers.items():
        roles = _attention_roles(path, members) if _is_attention(path, members) else _mlp_roles(members)
        names = sorted(members, key=lambda name, roles=roles: _ORDER.get(roles[name].removeprefix("cross_"), 5))
        (mlp if _MLP_NAMES.keys() & roles.values() else mixing).extend((n, roles[n], members[n]) for n in names)
    return mixing + mlp


def _is_attention(path: str, members: dict[str, nn.Module]) -> bool:
    leaves = {name.split(".")[-1] for name in members}
    return bool(_ATTENTION.search(path)) or {"q_proj", "k_proj", "v_proj"} <= leaves


def _attention_roles(path: str, members: dict[str, nn.Module]) -> dict[str, str]:
    prefix = "cross_" if _CROSS.search(path) else ""
    leaves = {name: name.split(".")[-1] for name in members}
    return {name: prefix + _ATTENTION_ROLES.get(leaf.lower(), leaf) for name, leaf in leaves.items()}


def _mlp_roles(members: dict[str, nn.Module]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for name in members:
        parts = name.split(".")
        by_leaf = _MLP_ROLES.get(parts[-1].lower(), parts[-1])
        roles[name] = _MLP_ROLES.get(".".join(parts[-2:]).lower(), by_leaf)
    widths = {role: _features(members[name]) for name, role in roles.items()}
    fused = "fc1" in widths and "fc2" in widths and widths["fc1"][1] == 2 * widths["fc2"][0]
    gated: dict[str, str] = {}
    if fused:  # one matrix makes gate and up at once, as in ModernBERT
        gated = {"fc1": "gate_up", "fc2": "down"}
    elif widths.keys() & {"gate", "up"}:
        gated = {"fc1": "gate", "fc2": "down"}
    return {name: gated.get(role, role) for name, role in roles.items()}
