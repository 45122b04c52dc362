"""π-Tuning's mixture: against its equations written out, and as plain PEFT reads it."""

import pytest
import torch

from taskit.methods.interpolated import Interpolated, Mixture
from taskit.methods.truncation import truncated
from taskit.zoo.lora_branch import Branch
from tests.methods.adapted import DENSE, QUERY, RANKS, VALUE, adapted, logits, places_of, reloaded, trained, update

EXPERTS = ({QUERY: 2, VALUE: 1, DENSE: 5}, {DENSE: 3})
GROUPS = {QUERY: "0.attention", VALUE: "0.attention", DENSE: "1.mlp"}
RULES = ["update", "parameters"]


def parametrization_of(rule="update", experts=EXPERTS, **more):
    names = tuple((f"expert{i}", "") for i in range(len(experts)))
    return Interpolated(experts, names, None, GROUPS, rule, **more)


def fill(parametrization, model, seed=3):
    """Random experts where the form expects them; returns them by location."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, rank in RANKS.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        branches = [
            Branch(
                torch.randn(expert[name], layer.in_features, generator=generator),
                torch.randn(layer.out_features, expert[name], generator=generator),
                0.5,
            )
            if name in expert
            else None
            for expert in parametrization.experts
        ]
        parametrization._fill(model, name, rank, branches)
        found[name] = branches
    return found


def set_alpha(model, *alphas):
    mixtures = [module for module in model.modules() if isinstance(module, Mixture)]
    with torch.no_grad():
        for mixture in set(mixtures):
            mixture.alpha.copy_(torch.tensor(alphas))


def target_update(model, parametrization, name):
    """dW of the target alone."""
    set_alpha(model, 0.0, *[-torch.inf] * len(parametrization.experts))
    return update(model, name).detach().clone()


def test_the_update_rule_is_the_sum_of_the_updates(tiny_bert):
    parametrization = parametrization_of()
    model = adapted(tiny_bert, parametrization)
    experts = fill(parametrization, model)
    targets = {name: target_update(model, parametrization, name) for name in RANKS}
    set_alpha(model, 1.0, 2.0, 0.5)
    s = torch.tensor([1.0, 2.0, 0.5]).softmax(0)
    for name, rank in RANKS.items():
        parts = [s[0] * targets[name]]
        for weight, branch in zip(s[1:], experts[name], strict=True):
            if branch is not None:
                a, b, _ = truncated(branch.a, branch.b, rank)
                parts.append(weight * branch.scaling * b @ a)
        torch.testing.assert_close(update(model, name).detach(), sum(parts).float(), rtol=1e-4, atol=1e-5)


def test_the_parameter_rule_is_equation_4_cross_terms_included(tiny_bert):
    parametrization = parametrization_of("parameters")
    model = adapted(tiny_bert, parametrization)
    stacks = {}
    for name in RANKS:
        layer = model.get_submodule(f"base_model.model.{name}")
        sides = layer.lora_A["default"], layer.lora_B["default"]
        stacks[name] = [side.parametrizations.weight.original.detach() for side in sides]
    set_alpha(model, 0.3, -1.0, 2.0)
    s = torch.tensor([0.3, -1.0, 2.0]).softmax(0)
    for name, (a, b) in stacks.items():
        expected = sum(s[i] * b[i] for i in range(3)) @ sum(s[i] * a[i] for i in range(3))
        torch.testing.assert_close(update(model, name).detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_without_experts_the_target_is_unchanged(rule, tiny_bert, sentences):
    model, plain = adapted(tiny_bert, parametrization_of(rule, ())), adapted(tiny_bert, parametrization_of(rule, ()))
    set_alpha(model, -3.0)  # the softmax of one number is 1
    torch.testing.assert_close(logits(model, sentences), logits(plain, sentences))
    assert {name: update(model, name).abs().sum() > 0 for name in RANKS} == dict.fromkeys(RANKS, True)


def test_a_one_hot_alpha_selects_an_expert(tiny_bert):
    parametrization = parametrization_of()
    model = adapted(tiny_bert, parametrization)
    experts = fill(parametrization, model)
    set_alpha(model, -torch.inf, 0.0, -torch.inf)
    branch = experts[QUERY][0]
    torch.testing.assert_close(update(model, QUERY).detach(), branch.scaling * branch.b @ branch.a)


@pytest.mark.parametrize("rule", RULES)
def test_identical_experts_leave_alpha_without_effect(rule, tiny_bert, sentences):
    parametrization = parametrization_of(rule, (dict(RANKS),))
    model = adapted(tiny_bert, parametrization)
    with torch.no_grad():
        for name, rank in RANKS.items():
            layer = model.get_submodule(f"base_model.model.{name}")
            down, up = layer.lora_A["default"], layer.lora_B["default"]
            if rule == "parameters":
                for side in (down, up):
                    stack = side.parametrizations.weight.original
                    stack[1] = stack[0]
            else:
                down.weight[rank:] = down.weight[:rank]
                b = up.parametrizations.weight.original
                b[:, rank:] = b[:, :rank]
    seen = []
    for alphas in ((1.0, 1.0), (2.0, -1.0)):
        set_alpha(model, *alphas)
        seen.append(logits(model, sentences))
    torch.testing.assert_close(*seen, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_the_collapse_is_exact_and_plain_peft_reads_it(rule, tiny_bert, sentences, tmp_path):
    parametrization = parametrization_of(rule)
    model = adapted(tiny_bert, parametrization)
    before = logits(model, sentences)
    assert parametrization.collapse(model) == 0.0
    assert not [name for name, _ in model.named_parameters() if "parametrizations" in name]
    torch.testing.assert_close(logits(model, sentences), before, rtol=0, atol=1e-5)
    plain = reloaded(tiny_bert, model, tmp_path)
    torch.testing.assert_close(logits(plain, sentences), before, rtol=0, atol=1e-5)
    assert not torch.allclose(before, logits(tiny_bert, sentences), atol=1e-3)


def test_a_truncated_collapse_tells_what_it_discards(tiny_bert, sentences, tmp_path):
    parametrization = parametrization_of(collapse_rank=2)
    model = adapted(tiny_bert, parametrization)
    singular = {name: torch.linalg.svdvals(update(model, name).detach().double()) for name in RANKS}
    discarded = parametrization.collapse(model)
    lost = sum(float(s[2:].square().sum()) for s in singular.values())
    whole = sum(float(s.square().sum()) for s in singular.values())
    assert discarded == pytest.approx(lost / whole, rel=1e-4)
    assert 0.01 < discarded < 1
    plain = reloaded(tiny_bert, model, tmp_path)
    assert {len(side) for name, side in plain.named_parameters() if ".lora_A." in name} == {2}
    torch.testing.assert_close(logits(plain, sentences), logits(model, sentences), rtol=0, atol=1e-5)


def test_truncation_is_the_best_of_its_rank():
    torch.manual_seed(0)
    a, b = torch.randn(5, 7), torch.randn(6, 5)
    small_a, small_b, energies = truncated(a, b, 2)
    u, s, vt = torch.linalg.svd(b.double() @ a.double())
    torch.testing.assert_close(small_b @ small_a, (u[:, :2] * s[:2]) @ vt[:2])
    torch.testing.assert_close(energies, s[:5].square())
    assert [part.data_ptr() for part in truncated(a, b, 5)[:2]] == [a.data_ptr(), b.data_ptr()]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("train", ["all", "weights"])
def test_the_plan_knows_how_many_parameters_are_trained(rule, train, tiny_bert):
    parametrization = parametrization_of(rule, train=train)
    model = adapted(tiny_bert, parametrization)
    parametrization.begin(model, {})
    assert trained(model) == parametrization.parameters(places_of(tiny_bert), RANKS)


def test_while_the_target_learns_alone_experts_get_no_gradient(tiny_bert, sentences):
    parametrization = parametrization_of()
    model = adapted(tiny_bert, parametrization)
    for mixture in {module for module in model.modules() if isinstance(module, Mixture)}:
        mixture.target_only()
    model(**sentences).loss.backward()
    layer = model.get_submodule(f"base_model.model.{DENSE}")
    a, b = layer.lora_A["default"].weight.grad, layer.lora_B["default"].parametrizations.weight.original.grad
    assert a[:3].abs().sum() > 0
    assert b[:, :3].abs().sum() > 0
    assert a[3:].abs().sum() == 0
    assert b[:, 3:].abs().sum() == 0


def test_locations_of_one_layer_share_their_weights(tiny_bert):
    model = adapted(tiny_bert, parametrization_of())
    alphas = [name for name, _ in model.named_parameters() if name.endswith(".alpha")]
    assert len(alphas) == 2
