"""Squared gradients of single examples, against autograd's own gradients of every weight."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    SwinConfig,
    SwinForImageClassification,
)

from taskit.backbone.target_modules import find_locations
from taskit.transfer.probe import class_probes, example_features, frozen, text_probes, token_features
from taskit.transfer.sensitivity import sensitivities

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}


def bert(tiny_bert, sentences):
    return tiny_bert, sentences


def albert(_, sentences):  # all blocks share their weights
    torch.manual_seed(0)
    config = AlbertConfig(**SMALL, embedding_size=8, vocab_size=50, num_labels=3)
    return AlbertForSequenceClassification(config).eval(), sentences


def swin(_, sentences):  # blocks within checkpointed stages, windows instead of examples in front
    torch.manual_seed(0)
    config = SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4)
    config.num_labels = 3
    batch = {"pixel_values": torch.randn(12, 3, 32, 32), "labels": sentences["labels"]}
    return SwinForImageClassification(config).eval(), batch


def llama(_, sentences):
    torch.manual_seed(0)
    labels = sentences["input_ids"].masked_fill(sentences["attention_mask"] == 0, -100)
    config = LlamaConfig(**SMALL, num_key_value_heads=1, vocab_size=50, use_cache=False)
    return LlamaForCausalLM(config).eval(), {**sentences, "labels": labels}


@pytest.fixture(params=[bert, albert, swin, llama])
def task(request, tiny_bert, sentences):
    """A model, its probes, and how the features are read with their graph."""
    model, batch = request.param(tiny_bert, sentences)
    batches = [{key: value[rows] for key, value in batch.items()} for rows in (slice(5), slice(5, 12))]
    if request.param is llama:
        make, features, reader = text_probes, token_features, model.lm_head
    else:
        make, features, reader = stand_in_probes, example_features, model.classifier
    with frozen(model):
        return model, make(model, batches, reader), partial(features, model, reader, graph=True)


def stand_in_probes(*what):
    return class_probes(*what)[0]


def literal(model, probes, read, names):
    """The mean over examples of ||dL_j / dW_k||_F^2, every gradient whole."""
    weights = [model.get_submodule(name).weight.requires_grad_(True) for name in names]
    total, count = torch.zeros(len(weights), dtype=torch.float64), sum(len(probe.x) for probe in probes)
    for probe in probes:
        for row in range(len(probe.x)):
            x = read({key: value[row : row + 1] for key, value in probe.inputs.items()})
            for k, grad in enumerate(torch.autograd.grad(x, weights, probe.gradient[row : row + 1] * count)):
                total[k] += grad.double().square().sum()
    return (total / count).tolist()


def test_equals_the_squares_of_autograds_gradients(task):
    model, probes, read = task
    names = [place.name for place in find_locations(model)]
    with frozen(model):
        found = sensitivities(model, probes, read, names)
        assert not model.training
        assert not any(parameter.grad is not None for parameter in model.parameters())
        expected = literal(model, probes, read, names)
    assert found == pytest.approx(expected, rel=1e-4)
    assert min(found) > 0


def hooks(model):
    """Hooks of every module; Transformers hangs some into models of its own."""
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


def test_the_model_is_left_as_it_was(task):
    model, probes, read = task
    names = [place.name for place in find_locations(model)]
    model.train()
    state, before = {key: value.clone() for key, value in model.state_dict().items()}, hooks(model)
    with frozen(model):
        sensitivities(model, probes, read, names)
    assert all(module.training for module in model.modules())
    assert not model.is_activation_checkpointing
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert hooks(model) == before


def test_a_location_that_the_features_do_not_depend_on_is_not_sensitive(tiny_bert, sentences):
    with frozen(tiny_bert):
        probes = stand_in_probes(tiny_bert, [sentences], tiny_bert.classifier)
        read = partial(example_features, tiny_bert, tiny_bert.classifier, graph=True)
        last = tiny_bert.bert.encoder.layer[1].output.dense
        early = partial(token_features, tiny_bert, last, graph=True)
        assert sensitivities(tiny_bert, probes, read, ["bert.encoder.layer.1.output.dense"])[0] > 0
        gradients = [replace(probe, gradient=torch.ones(12, 9, 24)) for probe in probes]
        assert sensitivities(tiny_bert, gradients, early, ["bert.encoder.layer.1.output.dense"]) == (0.0,)
