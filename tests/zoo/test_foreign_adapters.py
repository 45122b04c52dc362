"""Adapters that TaskIT did not write compute here what they compute in PEFT."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from taskit.errors import ZooError
from taskit.zoo.adapter import CONFIG, WEIGHTS, read_config, read_tensors
from taskit.zoo.lora_branch import attached, current_name, linear_shapes
from tests.conftest import BERT, VIT, save_adapter

OLD = {
    "layers.": "encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.v_proj": "attention.attention.value",
    "mlp.fc1": "intermediate.dense",
}


def old_name(key):
    """The names that Transformers 4 gave to the modules of a ViT."""
    for new, old in OLD.items():
        key = key.replace(new, old)
    return key


def rename(folder, change):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    save_file({change(key): value for key, value in tensors.items()}, folder / WEIGHTS)
    config = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(change(config.replace("\\\\.", ".")))


def logits(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def require_same(folder, model, peft, batch):
    branches = read_tensors(folder, read_config(folder), linear_shapes(model), current_name(model))
    with attached(model, branches):
        ours = logits(model, batch)
    torch.testing.assert_close(ours, logits(peft, batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"use_rslora": True, "rank_pattern": {}, "alpha_pattern": {}, "lora_alpha": 16},
        {"rank_pattern": {}, "alpha_pattern": {}, "lora_alpha": 3},
        {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {"fc1": 7}},
        {"target_modules": ["q_proj", "fc1"], "rank_pattern": {}, "alpha_pattern": {}},
        {"lora_dropout": 0.5},
    ],
)
def test_ranks_and_scalings_as_peft_reads_them(options, tiny_vit, images, tmp_path):
    peft = save_adapter(tiny_vit, tmp_path, dict.fromkeys(VIT, 3), **options)
    require_same(tmp_path, tiny_vit, peft, images)


def test_old_names_of_vit_modules(tiny_vit, images, tmp_path):
    peft = save_adapter(tiny_vit, tmp_path, dict(zip(VIT, (1, 4, 2), strict=True)))
    rename(tmp_path, old_name)
    assert not any("q_proj" in key for key in load_file(tmp_path / WEIGHTS))
    require_same(tmp_path, tiny_vit, peft, images)


def test_an_adapter_of_the_bare_base_model(tiny_bert, sentences, tmp_path):
    peft = save_adapter(tiny_bert, tmp_path, dict.fromkeys(BERT, 2))
    rename(tmp_path, lambda text: text.replace("model.bert.", "model.").replace("^bert.", "^"))
    require_same(tmp_path, tiny_bert, peft, sentences)


def test_two_names_for_one_module_are_refused(tiny_vit, tmp_path):
    save_adapter(tiny_vit, tmp_path, {VIT[0]: 2}, rank_pattern={}, alpha_pattern={})
    tensors = load_file(tmp_path / WEIGHTS)
    (tmp_path / WEIGHTS).unlink()
    save_file(tensors | {old_name(key): value.clone() for key, value in tensors.items()}, tmp_path / WEIGHTS)
    with pytest.raises(ZooError, match="under two names"):
        read_tensors(tmp_path, read_config(tmp_path), linear_shapes(tiny_vit), current_name(tiny_vit))


def test_dora_is_skipped_with_its_reason(tiny_vit, tmp_path):
    config = LoraConfig(r=2, target_modules="|".join(map(re.escape, VIT)), use_dora=True)
    peft = get_peft_model(tiny_vit, config)
    peft.peft_config["default"].base_model_name_or_path = "test/tiny"
    peft.save_pretrained(tmp_path, save_embedding_layers=False)
    with pytest.raises(ZooError, match="use_dora"):
        read_config(tmp_path)
