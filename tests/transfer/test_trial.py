"""The trial against plain autograd on full updates, and what it must leave as it was."""

import pytest
import torch
import torch.nn.functional as F
from transformers import get_cosine_schedule_with_warmup

from taskit.step.step import CLIP_NORM
from taskit.transfer import trial
from taskit.transfer.probe import frozen
from taskit.transfer.trial import RANK, ROWS, STEPS, run_trial
from taskit.zoo.lora_branch import attached
from tests.conftest import VIT


def loss_of(model):
    return lambda batch: F.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"])


def literal(model, batch, names):
    """The same steps with W + B A written out and a plain AdamW, on whole steps of rows."""
    start = trial._start(model, names)
    a = {name: one.a.detach().clone().requires_grad_() for name, one in start.items()}
    b = {name: one.b.detach().clone().requires_grad_() for name, one in start.items()}
    trained = [matrix for name in names for matrix in (a[name], b[name])]
    optimizer = torch.optim.AdamW(trained, lr=trial.LEARNING_RATE, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, trial.WARMUP, STEPS)
    rows = torch.arange(STEPS * ROWS) % len(batch["labels"])
    removed = dict.fromkeys(names, 0.0)
    for step in rows.split(ROWS):
        weights = {f"{name}.weight": model.get_submodule(name).weight + b[name] @ a[name] for name in names}
        logits = torch.func.functional_call(model, weights, (batch["pixel_values"][step],)).logits
        optimizer.zero_grad()
        F.cross_entropy(logits, batch["labels"][step]).backward()
        slopes = {name: (a[name].grad.clone(), b[name].grad.clone()) for name in names}
        before = {name: (a[name].detach().clone(), b[name].detach().clone()) for name in names}
        torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        optimizer.step()
        schedule.step()
        for name in names:
            for slope, old, new in zip(slopes[name], before[name], (a[name], b[name]), strict=True):
                removed[name] -= float((slope * (new.detach() - old)).sum())
    return {name: (b[name] @ a[name]).detach() for name in names}, removed


def test_equals_the_same_training_written_out(tiny_vit, images):
    with frozen(tiny_vit):
        expected, removed = literal(tiny_vit, images, VIT)
        found = run_trial(tiny_vit, [images], loss_of(tiny_vit), VIT)
    for name in VIT:
        branch = found.branches[name]
        assert branch.a.shape[0] == branch.b.shape[1] == RANK
        assert torch.allclose(branch.b @ branch.a, expected[name], atol=2e-5)
        assert expected[name].abs().max() > 1e-3
    assert found.removed == pytest.approx(removed, rel=1e-3)
    values = [(max(removed[name], 0) * float(expected[name].norm()) ** 2) ** (1 / 3) for name in VIT]
    assert found.importance([*VIT, "elsewhere"]) == pytest.approx([*values, 0], rel=1e-3)
    assert min(values) > 0


def test_the_loss_falls(tiny_vit, images):
    pattern = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    images["pixel_values"] += pattern[images["labels"]]
    loss = loss_of(tiny_vit)
    with frozen(tiny_vit), torch.no_grad():
        before = float(loss(images))
        with attached(tiny_vit, run_trial(tiny_vit, [images], loss, VIT).branches):
            assert float(loss(images)) < before


def test_no_more_rows_pass_at_once_than_allowed_and_each_equally_often(tiny_vit, images):
    seen = []

    def loss(batch):
        seen.append(batch["labels"])
        return loss_of(tiny_vit)(batch)

    images["labels"] = torch.arange(12)
    tiny_vit.classifier = torch.nn.Linear(tiny_vit.classifier.in_features, 12)
    cut = [{name: tensor[rows] for name, tensor in images.items()} for rows in (slice(1), slice(1, 12))]
    with frozen(tiny_vit):
        run_trial(tiny_vit, cut, loss, VIT)
    assert max(map(len, seen)) == ROWS
    assert torch.equal(torch.cat(seen), torch.arange(STEPS * ROWS) % 12)


def test_the_model_is_left_as_it_was(tiny_vit, images):
    state = {name: tensor.clone() for name, tensor in tiny_vit.state_dict().items()}
    with frozen(tiny_vit):
        run_trial(tiny_vit, [images], loss_of(tiny_vit), VIT)
    assert all(torch.equal(tensor, state[name]) for name, tensor in tiny_vit.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny_vit.modules())
    assert all(parameter.grad is None for parameter in tiny_vit.parameters())


@pytest.mark.parametrize("seed", [0, 1])
def test_is_deterministic(tiny_vit, images, seed):
    torch.manual_seed(seed)
    with frozen(tiny_vit):
        one, other = (run_trial(tiny_vit, [images], loss_of(tiny_vit), VIT) for _ in range(2))
    assert all(torch.equal(one.branches[name].b, other.branches[name].b) for name in VIT)
    assert one.removed == other.removed
