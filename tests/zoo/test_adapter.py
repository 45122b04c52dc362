"""Reading an adapter that a stranger may have written."""

import json
import struct

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from taskit.errors import ZooError
from taskit.zoo.adapter import AdapterConfig, read_config, read_ranks, read_tensors
from taskit.zoo.lora_branch import linear_shapes
from tests.conftest import BACKBONE, BERT, VIT

RANKS = dict(zip(VIT, (1, 4, 2), strict=True))


@pytest.fixture
def folder(tiny_vit, make_adapter, tmp_path):
    make_adapter(tiny_vit, tmp_path, RANKS, modules_to_save=["classifier"])
    return tmp_path


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path)


def read(folder, model):
    return read_tensors(folder, read_config(folder), linear_shapes(model))


def config_with(**patterns):
    pattern = {key: (position, value) for position, (key, value) in enumerate(patterns.pop("alphas").items())}
    return AdapterConfig(BACKBONE, 4, 8.0, {}, pattern, patterns.get("rslora", False), ())


def test_reads_ranks_and_scalings_of_every_module(folder, tiny_vit):
    config = read_config(folder)
    assert config.backbone == BACKBONE
    assert config.heads == ("classifier",)
    assert read_ranks(folder, config) == tuple(sorted(RANKS.items()))
    branches = read(folder, tiny_vit)
    assert [branches[name].scaling for name in VIT] == [2 / 1, 9 / 4, 6 / 2]  # alpha = 2 r + k, see conftest
    assert branches[VIT[1]].a.shape == (4, 16)
    assert branches[VIT[1]].b.shape == (24, 4)


def test_pattern_keys_match_as_peft_matches_them():
    config = config_with(alphas={"^a.q": 1, "layer.1.q": 2, "q": 4})
    scalings = {name: config.scaling(name) * 4 for name in ("a.q", "b.a.q", "layer.1.q", "x.layer.1.q", "layer.11.q")}
    assert scalings == {"a.q": 1, "b.a.q": 4, "layer.1.q": 2, "x.layer.1.q": 2, "layer.11.q": 4}
    assert config.scaling("other") == 2
    assert config_with(alphas={}, rslora=True).scaling("other") == 4


def test_target_modules_are_never_run(folder, tiny_vit):
    edit_config(folder, target_modules="(a+)+$" * 50)
    assert set(read(folder, tiny_vit)) == set(VIT)


def test_a_list_of_suffixes_as_other_tools_write_it(tiny_vit, make_adapter, tmp_path):
    plain = {"target_modules": ["q_proj"], "rank_pattern": {"0.attention.q_proj": 2}, "alpha_pattern": {}}
    peft = make_adapter(tiny_vit, tmp_path, {VIT[0]: 4}, **plain)
    branches = read(tmp_path, tiny_vit)
    assert {name: branch.a.shape[0] for name, branch in branches.items()} == {VIT[0]: 2, VIT[0].replace("0", "1"): 4}
    for name, branch in branches.items():
        assert branch.scaling == peft.get_submodule(f"base_model.model.{name}").scaling["default"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peft_type": "IA3"}, "PEFT type"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"something_new": 1}, "something_new"),
        ({"r": 20_000_000}, "rank 20000000"),
        ({"r": True}, "rank True"),
        ({"rank_pattern": {"q_proj": 0}}, "rank 0"),
        ({"rank_pattern": {"(.*)*q_proj": 2}}, "regular expression"),
        ({"alpha_pattern": {"q_proj|v_proj": 2}}, "regular expression"),
        ({"rank_pattern": {}}, "contradict"),
        ({"lora_alpha": float("nan")}, "alpha nan"),
        ({"lora_alpha": 10**4000}, "alpha 1"),
        ({"base_model_name_or_path": None}, "no base model"),
        ({"modules_to_save": "classifier"}, "modules_to_save"),
        ({"modules_to_save": []}, "belongs to no LoRA"),
    ],
)
def test_refuses_a_hostile_config(folder, tiny_vit, changes, reason):
    edit_config(folder, **changes)
    with pytest.raises(ZooError, match=reason):
        read(folder, tiny_vit)


def put(key, value):
    return lambda tensors: tensors.update({f"base_model.model.{key}": value})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("vit.layers.0.mlp.fc1.weight", torch.zeros(24, 16)), "belongs to no LoRA"),
        (put(f"{VIT[0]}.base_layer.weight", torch.zeros(16, 16)), "belongs to no LoRA"),
        (put("vit.embeddings.cls_token", torch.zeros(1, 1, 16)), "belongs to no LoRA"),
        (put(f"{VIT[0]}.lora_A.weight", torch.full((1, 16), torch.nan)), "NaN"),
        (put(f"{VIT[0]}.lora_A.weight", torch.zeros(1, 17)), "17 -> 16, not 16 -> 16"),
        (put(f"{VIT[0]}.lora_A.weight", torch.zeros(3, 16)), "contradict"),
        (put(f"{VIT[0]}.lora_A.weight", torch.zeros(1, 16, dtype=torch.int32)), "floating-point matrix"),
        (put("vit.layers.9.mlp.fc1.lora_A.weight", torch.zeros(4, 16)), "complete pairs"),
        (lambda tensors: [tensor.zero_() for key, tensor in tensors.items() if "lora_B" in key], "changes nothing"),
        (lambda tensors: tensors.clear(), "complete pairs"),
    ],
)
def test_refuses_hostile_tensors(folder, tiny_vit, change, reason):
    edit_tensors(folder, change)
    with pytest.raises(ZooError, match=reason):
        read(folder, tiny_vit)


def test_refuses_a_head_that_lies_in_a_block(folder, tiny_vit):
    edit_config(folder, modules_to_save=["classifier", "fc1"])
    edit_tensors(folder, put("vit.layers.0.mlp.fc1.weight", torch.zeros(24, 16)))
    with pytest.raises(ZooError, match="belongs to no LoRA"):
        read(folder, tiny_vit)


def test_refuses_a_module_that_the_backbone_lacks(folder, tiny_bert):
    with pytest.raises(ZooError, match="which the backbone lacks"):
        read(folder, tiny_bert)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 7, struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 2) + b"[]", b"\xff" * 100],
)
def test_refuses_a_damaged_file(folder, tiny_vit, content):
    (folder / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(ZooError):
        read(folder, tiny_vit)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"r": ', b"\xff\xfe", b"[" * 100_000, b" " * (2 << 20)])
def test_refuses_a_damaged_config(folder, content):
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(ZooError):
        read_config(folder)


def test_never_opens_a_pickle_or_a_link(folder, tiny_vit, tmp_path):
    weights = folder / "adapter_model.safetensors"
    weights.rename(folder / "elsewhere")
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ZooError, match="missing"):
        read(folder, tiny_vit)
    weights.symlink_to(folder / "elsewhere")
    with pytest.raises(ZooError, match="symbolic link"):
        read(folder, tiny_vit)
    assert not (tmp_path / "pwned").exists()


def test_what_it_accepts_peft_loads(folder, tiny_vit):
    read(folder, tiny_vit)
    assert PeftModel.from_pretrained(tiny_vit, folder).peft_config["default"].r == 4


def test_half_precision_becomes_float32(tiny_bert, make_adapter, tmp_path):
    make_adapter(tiny_bert, tmp_path, dict.fromkeys(BERT, 2))
    edit_tensors(tmp_path, lambda tensors: tensors.update({k: t.half() for k, t in tensors.items()}))
    assert {branch.a.dtype for branch in read(tmp_path, tiny_bert).values()} == {torch.float32}
