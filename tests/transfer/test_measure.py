"""The whole pass against PEFT and the literal equations, one explicit loop at a time."""

from dataclasses import replace

import pytest
import torch

from taskit.errors import BackboneError
from taskit.transfer.importance import transfer
from taskit.transfer.measure import measure
from taskit.transfer.probe import class_probes
from taskit.transfer.similarity import MEASURES
from taskit.zoo.zoo import open_zoo
from tests.conftest import BACKBONE, BERT, GPT2, VIT

LOCATIONS = (*VIT, "vit.layers.1.mlp.fc2")


def cut(batch, *sizes):
    parts = {key: value.split(list(sizes)) for key, value in batch.items()}
    return [{key: parts[key][i] for key in parts} for i in range(len(sizes))]


@pytest.fixture
def vit_zoo(tiny_vit, make_adapter, tmp_path):
    pefts = [
        make_adapter(tiny_vit, tmp_path / "a", {VIT[0]: 2, VIT[1]: 4}, seed=1),
        make_adapter(tiny_vit, tmp_path / "b", {VIT[2]: 1}, seed=2, modules_to_save=["classifier"]),
    ]
    return pefts, open_zoo(tmp_path, BACKBONE).tasks


def phis(found):
    return [one.phi for one in found.similarities]


def peft_outputs(peft, batch, names):
    """{name: (branch output, base output without bias)} and the input of the classifier, by PEFT's own layers."""
    seen, handles = {}, []
    for name in names:
        layer = peft.get_submodule(f"base_model.model.{name}")

        def keep(layer, inputs, _, name=name):
            x, lora = inputs[0], (layer.lora_A["default"], layer.lora_B["default"])
            branch = layer.scaling["default"] * (x @ lora[0].weight.T @ lora[1].weight.T)
            seen[name] = (branch, x @ layer.base_layer.weight.T)

        handles.append(layer.register_forward_hook(keep))
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        x = peft(**inputs, output_hidden_states=True).hidden_states[-1]
    for handle in handles:
        handle.remove()
    return seen, x


def test_importance_equals_equation_3_computed_with_peft(tiny_vit, images, vit_zoo):
    pefts, tasks = vit_zoo
    ways = {"kind": "delta", "importance": "ratio"}
    found = measure(tiny_vit, cut(images, 5, 7), LOCATIONS, tiny_vit.classifier, tasks, **ways)
    for peft, task, importance in zip(pefts, tasks, found.importances, strict=True):
        seen, _ = peft_outputs(peft, images, [name for name, _ in task.ranks])
        for name, value in zip(LOCATIONS, importance.values, strict=True):
            branch, base = seen.get(name, (torch.zeros(1), torch.ones(1)))
            assert value == pytest.approx(float(branch.abs().sum() / base.abs().sum()), rel=1e-5)


def test_the_default_importance_is_the_norm_of_the_update_that_peft_would_merge(tiny_vit, images, vit_zoo):
    pefts, tasks = vit_zoo
    found = measure(tiny_vit, [images], LOCATIONS, tiny_vit.classifier, tasks)
    for peft, task, importance in zip(pefts, tasks, found.importances, strict=True):
        inserted = {name for name, _ in task.ranks}
        for name, value in zip(LOCATIONS, importance.values, strict=True):
            layer = peft.get_submodule(f"base_model.model.{name}") if name in inserted else None
            merged = layer.get_delta_weight("default").detach() if layer else torch.zeros(1)
            assert value == pytest.approx(float(merged.norm()), rel=1e-5)
    assert min(found.own) > 0


def test_what_single_modules_gained_is_the_importance_where_the_notes_know_it(tiny_vit, images, vit_zoo):
    """Gains of no location that the model has are none."""
    gains = (((LOCATIONS[1], 0.5), (LOCATIONS[2], 2.0), ("gone", 9.0)), (("gone", 9.0),))
    tasks = [replace(task, gains=one) for task, one in zip(vit_zoo[1], gains, strict=True)]
    found = measure(tiny_vit, [images], LOCATIONS, tiny_vit.classifier, tasks).importances
    plain = measure(tiny_vit, [images], LOCATIONS, tiny_vit.classifier, vit_zoo[1]).importances
    assert found[0].values == tuple({LOCATIONS[1]: 0.5, LOCATIONS[2]: 2.0}.get(name, 0.0) for name in LOCATIONS)
    assert [one.measured for one in found] == [True, False]
    assert found[1] == plain[1]
    loud = measure(tiny_vit, [images], LOCATIONS, tiny_vit.classifier, tasks, importance="ratio").importances
    assert not any(one.measured for one in loud), "Eq. (3) is asked of the outputs"


def test_similarity_equals_equation_4_computed_with_peft(tiny_vit, images, vit_zoo):
    pefts, tasks = vit_zoo
    raw, delta = (
        [
            one.phi
            for one in measure(tiny_vit, [images], LOCATIONS, tiny_vit.classifier, tasks, kind=kind).similarities
        ]
        for kind in ("raw", "delta")
    )
    (probe,), _ = class_probes(tiny_vit, [images], tiny_vit.classifier)
    ideal = probe.x - 0.1 * probe.x.norm() / probe.gradient.norm() * probe.gradient
    for peft, raw_phi, delta_phi in zip(pefts, raw, delta, strict=True):
        base = peft.base_model.model
        with torch.no_grad():
            moved = base.vit(images["pixel_values"]).last_hidden_state[:, 0]
        cosine = torch.nn.functional.cosine_similarity
        assert raw_phi == pytest.approx(float(cosine(ideal, moved).mean()), abs=1e-5)
        assert delta_phi == pytest.approx(float(cosine(-1e4 * probe.gradient, moved - probe.x).mean()), abs=1e-5)


def test_the_gradient_similarity_equals_autograds_inner_products(tiny_vit, images, vit_zoo):
    pefts, tasks = vit_zoo
    found = measure(tiny_vit, cut(images, 5, 7), LOCATIONS, tiny_vit.classifier, tasks, kind="gradient")
    (probe,), _ = class_probes(tiny_vit, [images], tiny_vit.classifier)
    weights = [tiny_vit.get_submodule(name).weight for name in LOCATIONS]
    x = tiny_vit.vit(images["pixel_values"]).last_hidden_state[:, 0]
    gradients = dict(zip(LOCATIONS, torch.autograd.grad(x, weights, probe.gradient, retain_graph=True), strict=True))
    squares = 0.0
    for row in range(12):  # single examples, whose mean the probe's gradient is
        for gradient in torch.autograd.grad(x[row], weights, 12 * probe.gradient[row], retain_graph=True):
            squares += float(gradient.square().sum()) / 12
    for peft, one in zip(pefts, found.similarities, strict=True):
        product = norm = 0.0
        for name in LOCATIONS:
            layer = peft.get_submodule(f"base_model.model.{name}")
            if "default" in getattr(layer, "lora_A", {}):
                update = layer.get_delta_weight("default").detach()
                product += float((update * gradients[name]).sum())
                norm += float(update.square().sum())
        assert one.phi == pytest.approx(-product / (norm * squares) ** 0.5, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("kind", MEASURES)
def test_the_cut_into_batches_does_not_matter(tiny_vit, images, vit_zoo, kind):
    _, tasks = vit_zoo
    one = measure(tiny_vit, [images], LOCATIONS, tiny_vit.classifier, tasks, kind=kind)
    many = measure(tiny_vit, cut(images, 1, 4, 7), LOCATIONS, tiny_vit.classifier, tasks, kind=kind)
    assert phis(many) == pytest.approx(phis(one), abs=1e-4)
    assert many.own == pytest.approx(one.own, rel=1e-4)
    for a, b in zip(one.importances, many.importances, strict=True):
        assert a.values == pytest.approx(b.values, rel=1e-5)


@pytest.mark.parametrize("kind", MEASURES)
@pytest.mark.parametrize("what", ["classify", "generate"])
def test_padding_does_not_matter(tiny_bert, tiny_gpt2, sentences, make_adapter, tmp_path, what, kind):
    if what == "classify":
        model, names, head, fill = tiny_bert, BERT, tiny_bert.classifier, None
    else:
        model, names, head, fill = tiny_gpt2, GPT2, None, -100
        sentences["labels"] = sentences["input_ids"].masked_fill(sentences["attention_mask"] == 0, -100)
    make_adapter(model, tmp_path / "a", dict.fromkeys(names, 2))
    tasks = open_zoo(tmp_path, BACKBONE).tasks
    wider = {key: torch.nn.functional.pad(value, (0, 5)) for key, value in sentences.items() if value.ndim == 2}
    wider["labels"] = (
        sentences["labels"] if fill is None else wider["labels"].index_fill(1, torch.arange(9, 14), fill)
    )
    plain, padded = (measure(model, [batch], names, head, tasks, kind=kind) for batch in (sentences, wider))
    assert phis(padded) == pytest.approx(phis(plain), abs=1e-4)
    assert padded.own == pytest.approx(plain.own, rel=1e-4)
    assert padded.importances[0].values == pytest.approx(plain.importances[0].values, abs=1e-5)


def test_an_adapter_trained_the_right_way_is_similar_and_its_opposite_is_not(
    tiny_vit, images, make_adapter, tmp_path
):
    pattern = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    images["pixel_values"] += 0.3 * pattern[images["labels"]]  # what one image teaches holds for others
    peft = make_adapter(
        tiny_vit, tmp_path / "good", {VIT[1]: 4, VIT[2]: 4}, scale=0.0, modules_to_save=["classifier"]
    )
    optimizer = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        peft(**images).loss.backward()
        optimizer.step()
    peft.save_pretrained(tmp_path / "good", save_embedding_layers=False)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            parameter.data.neg_()
    peft.save_pretrained(tmp_path / "opposite", save_embedding_layers=False)
    tasks = open_zoo(tmp_path, BACKBONE).tasks
    good, opposite = measure(tiny_vit, [images], LOCATIONS, tiny_vit.classifier, tasks).similarities
    assert good.phi > 0.3 > 0.2 > opposite.phi  # a long way from the start they are no opposites
    found = measure(tiny_vit, [images], LOCATIONS, tiny_vit.classifier, tasks, kind="delta")
    good, opposite = found.similarities
    assert good.phi > 0.1 > -0.02 > opposite.phi
    assert (good.used, opposite.used) == (True, False)
    values = transfer(found.similarities, found.importances, found.own, "ratio")
    expected = [good.phi * value for value in found.importances[0].values]
    assert [sum(addends.values()) for addends in values] == pytest.approx(expected)


def test_what_cannot_be_used_is_skipped_and_the_model_is_left_as_it_was(tiny_vit, images, make_adapter, tmp_path):
    make_adapter(tiny_vit, tmp_path / "fine", {VIT[0]: 2})
    make_adapter(tiny_vit, tmp_path / "silent", {VIT[0]: 2}, scale=0.0)
    make_adapter(tiny_vit, tmp_path / "loud", {VIT[2]: 2}, scale=1e38)
    tasks = open_zoo(tmp_path, BACKBONE).tasks
    (tmp_path / "fine" / "adapter_model.safetensors").rename(tmp_path / "kept")
    tiny_vit.train()
    tiny_vit.vit.layers[0].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in tiny_vit.parameters()]
    state = {key: value.clone() for key, value in tiny_vit.state_dict().items()}
    found = measure(tiny_vit, [images], LOCATIONS, tiny_vit.classifier, tasks)
    assert found.importances == ()
    assert found.similarities == ()
    reasons = dict(found.skipped)
    assert "missing" in reasons["fine"]
    assert "changes nothing" in reasons["silent"]
    assert "not finite" in reasons["loud"]
    assert tiny_vit.training
    assert [parameter.requires_grad for parameter in tiny_vit.parameters()] == flags
    assert all(torch.equal(value, state[key]) for key, value in tiny_vit.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny_vit.modules())


def test_a_model_without_any_head_is_one_sentence(tiny_vit, images):
    with pytest.raises(BackboneError, match="no head"):
        measure(tiny_vit.vit, [images], LOCATIONS, None, ())
