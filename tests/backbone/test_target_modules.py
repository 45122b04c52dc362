"""Candidates on small random models of many architectures, against expectations written by hand."""

import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from taskit.backbone.target_modules import Location, find_locations
from tests.tiny import ARCHITECTURES, tiny_model

CLASSIC = "q k v o fc1 fc2"
GATED = "q k v o gate up down"
FUSED = "qkv o gate_up down"
CROSS = "q k v o cross_q cross_k cross_v cross_o"

# the roles of each block in forward order
EXPECTED = {
    "vit": [CLASSIC] * 2,
    "deit": [CLASSIC] * 2,
    "swin": [CLASSIC] * 3,
    "swinv2": [CLASSIC] * 3,
    "dinov2": [CLASSIC] * 2,
    "bert": [CLASSIC] * 2,
    "roberta": [CLASSIC] * 2,
    "albert": [CLASSIC],
    "distilbert": [CLASSIC] * 2,
    "modernbert": [FUSED] * 2,
    "gpt2": ["qkv o fc1 fc2"] * 2,
    "llama": [GATED] * 2,
    "qwen3": [GATED] * 2,
    "gemma3": [GATED] * 2,
    "phi3": [FUSED] * 2,
    "mixtral": ["q k v o"] * 2,
    "qwen2-moe": [GATED] * 2,
    "qwen3-moe": ["q k v o"] * 2,  # PEFT takes its gate, up and down for the experts' of an older Transformers
    "mamba": ["in_proj x_proj dt_proj"] * 2,
    "t5": [CLASSIC] * 2 + [f"{CROSS} fc1 fc2"] * 2,
    "t5-gated": [GATED] * 2 + [f"{CROSS} gate up down"] * 2,
    "clip-vision": [CLASSIC] * 2,
    "clip": [CLASSIC] * 2,
    "janus": [GATED] * 2,
}

# the names of the last block, where Transformers 5.17 and 5.23 agree on them
LAST_BLOCK = {
    "vit": ("vit.layers.1.", "attention.q_proj attention.k_proj attention.v_proj attention.o_proj mlp.fc1 mlp.fc2"),
    "swin": (
        "swin.encoder.layers.1.blocks.1.",
        "attention.q_proj attention.k_proj attention.v_proj attention.o_proj mlp.fc1 mlp.fc2",
    ),
    "bert": (
        "bert.encoder.layer.1.",
        "attention.self.query attention.self.key attention.self.value attention.output.dense"
        " intermediate.dense output.dense",
    ),
    "distilbert": (
        "distilbert.transformer.layer.1.",
        "attention.q_lin attention.k_lin attention.v_lin attention.out_lin ffn.lin1 ffn.lin2",
    ),
    "modernbert": ("model.layers.1.", "attn.Wqkv attn.Wo mlp.Wi mlp.Wo"),
    "gpt2": ("transformer.h.1.", "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj"),
    "phi3": ("model.layers.1.", "self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj"),
    "qwen2-moe": (
        "model.layers.1.",
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj"
        " mlp.shared_expert.gate_proj mlp.shared_expert.up_proj mlp.shared_expert.down_proj",
    ),
    "t5": (
        "decoder.block.1.layer.",
        "0.SelfAttention.q 0.SelfAttention.k 0.SelfAttention.v 0.SelfAttention.o"
        " 1.EncDecAttention.q 1.EncDecAttention.k 1.EncDecAttention.v 1.EncDecAttention.o"
        " 2.DenseReluDense.wi 2.DenseReluDense.wo",
    ),
    "clip-vision": (
        "encoder.layers.1.",
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj mlp.fc1 mlp.fc2",
    ),
    "janus": (
        "model.language_model.layers.1.",
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj",
    ),
}


def roles_by_block(locations: tuple[Location, ...]) -> list[str]:
    blocks = range(locations[-1].block + 1)
    return [" ".join(each.role for each in locations if each.block == block) for block in blocks]


@pytest.mark.parametrize("name", EXPECTED)
def test_every_projection_of_every_block_is_found_with_its_role(name: str) -> None:
    assert roles_by_block(find_locations(tiny_model(name))) == EXPECTED[name]


def test_dinov2_with_a_gated_mlp_is_found_fused_or_split() -> None:
    # Transformers 5.17 makes gate and up with one matrix, 5.23 with two
    found = roles_by_block(find_locations(tiny_model("dinov2-swiglu")))
    assert found in ([GATED] * 2, ["q k v o gate_up down"] * 2)


@pytest.mark.parametrize("name", LAST_BLOCK)
def test_names_are_full_paths_in_the_order_of_use(name: str) -> None:
    locations = find_locations(tiny_model(name))
    prefix, names = LAST_BLOCK[name]
    assert [each.name for each in locations if each.block == locations[-1].block] == [
        prefix + n for n in names.split()
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_are_those_of_the_modules(name: str) -> None:
    model = tiny_model(name)
    for each in find_locations(model):
        matrix = model.get_submodule(each.name)
        rows, columns = matrix.weight.shape
        transposed = not isinstance(matrix, nn.Linear)  # GPT-2's Conv1D
        assert (each.in_features, each.out_features) == ((rows, columns) if transposed else (columns, rows))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_peft_adapts_exactly_the_candidates(name: str) -> None:
    model = tiny_model(name)
    names = [each.name for each in find_locations(model)]
    # Conv1D keeps its weight transposed and PEFT would warn that it sets this itself
    inject_adapter_in_model(LoraConfig(r=2, target_modules=names, fan_in_fan_out=name == "gpt2"), model)
    adapted = [path for path, module in model.named_modules() if isinstance(module, LoraLayer)]
    assert sorted(adapted) == sorted(names)


# q, k and v stand in this order whatever the order of their calls, which does not matter
@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - {"janus", "albert", "mamba"}))
def test_the_order_is_that_of_a_forward_pass(name: str) -> None:
    model = tiny_model(name)
    locations = [each for each in find_locations(model) if each.role.split("_")[-1] not in ("q", "k", "v")]
    called: list[str] = []
    for each in locations:
        module = model.get_submodule(each.name)
        module.register_forward_hook(lambda *_, path=each.name: called.append(path))
    with torch.no_grad():
        model(**inputs_for(model))
    assert called == [each.name for each in locations]


def inputs_for(model: nn.Module) -> dict[str, torch.Tensor]:
    """A batch of two for an image, text or sequence-to-sequence model."""
    if model.main_input_name == "pixel_values":
        config = getattr(model.config, "vision_config", model.config)
        return {"pixel_values": torch.randn(2, 3, config.image_size, config.image_size)}
    tokens = torch.tensor([[1, 5, 6, 2], [1, 7, 8, 2]])
    return (
        {"input_ids": tokens, "decoder_input_ids": tokens}
        if model.config.is_encoder_decoder
        else {"input_ids": tokens}
    )


def test_experts_in_a_list_belong_to_their_block() -> None:
    # Switch Transformers and NLLB-MoE still keep each expert as modules of its own
    import transformers as t

    settings = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_experts": 2}
    layers = {
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
    }
    model = t.SwitchTransformersForConditionalGeneration(t.SwitchTransformersConfig(**settings, **layers))
    found = find_locations(model)
    assert max(each.block for each in found) == 3
    assert not any("router" in each.name for each in found)


def test_an_mlp_registered_first_still_follows_the_attention() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.ModuleDict({"down_proj": nn.Linear(8, 4), "up_proj": nn.Linear(4, 8)})
            self.attn = nn.ModuleDict({"o_proj": nn.Linear(4, 4), "qkv": nn.Linear(4, 12)})
            self.extra_attn = nn.MultiheadAttention(4, 2)

    model = nn.Module()
    model.layers = nn.ModuleList([Block()])
    model.aligner = nn.ModuleList([nn.Linear(4, 4)])
    assert [each.role for each in find_locations(model)] == ["qkv", "o", "up", "down"]


def test_a_model_without_blocks_has_no_candidates() -> None:
    assert find_locations(nn.Linear(2, 2)) == ()


def test_importing_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, taskit.backbone.loading; sys.exit(bool({'torch', 'transformers', 'peft'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
