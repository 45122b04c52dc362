"""A tiny model adapted in some form, and what plain PEFT makes of its export."""

import copy
from types import SimpleNamespace

import torch
from peft import PeftModel

from taskit.backbone.target_modules import find_locations
from taskit.step.lora import adapt
from taskit.training.export import write_weights

TASK = "text-classification"
QUERY, VALUE = (f"bert.encoder.layer.0.attention.self.{leaf}" for leaf in ("query", "value"))
DENSE = "bert.encoder.layer.1.output.dense"
RANKS = {QUERY: 2, VALUE: 2, DENSE: 3}


def places_of(model, ranks=RANKS):
    return [place for place in find_locations(model) if place.name in ranks]


def adapted(model, parametrization, ranks=RANKS):
    """A copy of ``model`` in ``form``, in evaluation mode, whatever is trained in its LoRA random."""
    made = adapt(copy.deepcopy(model), ranks, ("classifier",), TASK, parametrization).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".lora_" in name:
                parameter.copy_(2.0 * torch.randn(parameter.shape, generator=generator))
    return made


def logits(model, sentences):
    with torch.no_grad():
        return model(**{name: tensor for name, tensor in sentences.items() if name != "labels"}).logits


def reloaded(model, made, folder):
    """``made`` written by the product and read by plain PEFT onto a copy of ``model``."""
    write_weights(made, SimpleNamespace(backbone=SimpleNamespace(id="test/tiny")), folder)
    return PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()


def update(model, name):
    """dW of the location ``name``, (out, in)."""
    return model.get_submodule(f"base_model.model.{name}").get_delta_weight("default")


def trained(model):
    return sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and ".lora_" in name)
