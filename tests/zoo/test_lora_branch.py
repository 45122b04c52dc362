"""Attaching by hooks computes what PEFT computes, and leaves no trace."""

import pytest
import torch

from taskit.zoo.adapter import read_config, read_tensors
from taskit.zoo.lora_branch import attached, linear_shapes
from tests.conftest import BERT, GPT2, VIT


def branches_in(folder, model):
    return read_tensors(folder, read_config(folder), linear_shapes(model))


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"rank_pattern": {}, "alpha_pattern": {}}])
def test_equals_peft_on_a_vision_transformer(tiny_vit, images, make_adapter, tmp_path, options):
    peft = make_adapter(tiny_vit, tmp_path, dict(zip(VIT, (1, 4, 2), strict=True)), **options)
    with torch.no_grad(), attached(tiny_vit, branches_in(tmp_path, tiny_vit)):
        found = tiny_vit(images["pixel_values"]).logits
    with torch.no_grad():
        assert torch.allclose(found, peft(images["pixel_values"]).logits, atol=1e-6, rtol=0)
        assert (found - tiny_vit(images["pixel_values"]).logits).abs().max() > 1e-3


def test_equals_peft_on_bert_with_a_padding_mask(tiny_bert, sentences, make_adapter, tmp_path):
    peft = make_adapter(tiny_bert, tmp_path, dict.fromkeys(BERT, 3), modules_to_save=["classifier"])
    with torch.no_grad(), attached(tiny_bert, branches_in(tmp_path, tiny_bert)):
        assert torch.allclose(tiny_bert(**sentences).logits, peft(**sentences).logits, atol=1e-6, rtol=0)


def test_equals_peft_on_the_transposed_linear_of_gpt2(tiny_gpt2, sentences, make_adapter, tmp_path):
    peft = make_adapter(tiny_gpt2, tmp_path, dict.fromkeys(GPT2, 2), fan_in_fan_out=True)
    with torch.no_grad(), attached(tiny_gpt2, branches_in(tmp_path, tiny_gpt2)):
        found = tiny_gpt2(input_ids=sentences["input_ids"]).logits
    with torch.no_grad():
        assert torch.allclose(found, peft(input_ids=sentences["input_ids"]).logits, atol=1e-6, rtol=0)


def test_leaves_the_model_as_it_was_even_after_an_error(tiny_vit, images, make_adapter, tmp_path):
    make_adapter(tiny_vit, tmp_path, dict.fromkeys(VIT, 2))
    branches = branches_in(tmp_path, tiny_vit)
    modules, state = dict(tiny_vit.named_modules()), {k: v.clone() for k, v in tiny_vit.state_dict().items()}
    with torch.no_grad():
        before = tiny_vit(images["pixel_values"]).logits
        with pytest.raises(ValueError), attached(tiny_vit, branches):  # noqa: PT011 - whatever the model raises
            tiny_vit(torch.zeros(1, 3, 5, 5))
        assert torch.equal(tiny_vit(images["pixel_values"]).logits, before)
    assert dict(tiny_vit.named_modules()) == modules
    assert all(torch.equal(value, state[key]) for key, value in tiny_vit.state_dict().items())
    assert not any(module._forward_hooks for module in tiny_vit.modules())
