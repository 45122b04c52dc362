"""Tied pairs over one backbone: which tensors are one, what gradients they get, what each task exports."""

import copy

import pytest
import torch
from peft import PeftModel
from transformers import BertConfig, BertForSequenceClassification

from taskit.backbone.heads import head_names
from taskit.backbone.target_modules import find_locations
from taskit.memory.live import standing_tensors
from taskit.step.lora import adapt
from taskit.step.loss import loss_of
from taskit.together.task_tree import TaskTree
from taskit.together.tglora import join, share_backbone, shared_gradient, together

TASK = "text-classification"
SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
LABELS = (3, 2, 3)


def bert(labels, device=None):
    config = BertConfig(
        **SIZES, vocab_size=50, num_labels=labels, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    torch.manual_seed(0)
    with torch.device(device or "cpu"):
        return BertForSequenceClassification(config).eval()


def tree_of(*stages):
    tasks = sum(map(len, stages[0]))
    return TaskTree(tuple(f"t{k}" for k in range(tasks)), ((0.0,) * tasks,) * tasks, stages)


TOGETHER, PARTED, ALONE = ((0, 1, 2),), ((0, 2), (1,)), ((0,), (1,), (2,))


def joined(*stages, rank=2):
    first, *twins = models = [bert(LABELS[0]), *(bert(n, "meta") for n in LABELS[1:])]
    share_backbone(first, twins, TASK)
    ranks = {place.name: rank for place in find_locations(first)}
    torch.manual_seed(0)
    joint = join(models, ranks, tree_of(*stages), TASK)
    with torch.no_grad():  # so that lora_A has a gradient too, and a head of zeros does not stop all of them
        for name, parameter in joint.named_parameters():
            if "lora_B" in name or "classifier.modules_to_save" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.1)
    return joint, ranks


def batches():
    choose = torch.Generator().manual_seed(1)
    return [
        {
            "input_ids": torch.randint(1, 50, (4, 6), generator=choose),
            "labels": torch.randint(0, n, (4,), generator=choose),
        }
        for n in LABELS
    ]


def pair(joint, task, name):
    layer = joint.models[task].get_submodule(f"base_model.model.{name}")
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def test_the_backbone_is_held_once_and_the_heads_are_not():
    joint, _ = joined(TOGETHER, ALONE)
    heads = sum(p.numel() for part in (bert(3).classifier, bert(3).bert.pooler) for p in part.parameters())
    alone = sum(t.numel() for t in {id(t): t for t in standing_tensors(bert(3))}.values())
    lora = sum(p.numel() for name, p in joint.named_parameters() if "lora_" in name)
    own_heads = sum(p.numel() for p in joint.parameters() if p.requires_grad) - lora
    held = {t.untyped_storage()._cdata: t.numel() for t in standing_tensors(joint)}
    assert own_heads == sum(n * 16 + n + 16 * 16 + 16 for n in LABELS)
    # beside the backbone, pairs and trained heads only the frozen copies of the heads that PEFT keeps
    assert sum(held.values()) == alone - heads + lora + 2 * own_heads
    assert not any(t.is_meta for t in standing_tensors(joint))


def test_pairs_are_one_tensor_exactly_within_a_group():
    joint, ranks = joined(TOGETHER, PARTED, PARTED, ALONE)
    for name in ranks:
        block = int(name.split(".")[3])
        for t, u in ((0, 1), (0, 2), (1, 2)):
            shared = block == 0 or (block < 3 and (t, u) == (0, 2))
            for one, other in zip(pair(joint, t, name), pair(joint, u, name), strict=True):
                assert (one is other) == shared


@pytest.mark.parametrize("stages", [(TOGETHER,), (TOGETHER, PARTED, ALONE), (ALONE,)])
def test_a_tied_pair_gets_the_sum_of_its_tasks_gradients(stages):
    joint, ranks = joined(*stages)
    sums = {}
    for batch in together(batches(), range(3)):
        joint.zero_grad()
        loss_of(joint, batch).backward()
        for name in ranks:
            for task in range(3):
                for parameter in pair(joint, task, name):
                    if task == batch["task"]:
                        sums[parameter] = sums.get(parameter, 0) + parameter.grad.clone()
    joint.zero_grad()
    sum(loss_of(joint, batch) for batch in together(batches(), range(3))).backward()
    for parameter, expected in sums.items():
        torch.testing.assert_close(parameter.grad, expected)
    assert all(gradient.abs().sum() > 0 for gradient in sums.values())


def own_copy(joint, task):
    """The plain PEFT model of one task by itself, its tensors no longer shared with anybody."""
    return copy.deepcopy(joint.models[task])


def test_one_group_throughout_is_an_ordinary_shared_lora():
    """Every task's model computes with the same LoRA: that of the first, loaded into a model of its own."""
    joint, ranks = joined(TOGETHER, TOGETHER)
    for task, batch in enumerate(batches()):
        base = bert(LABELS[task])
        plain = adapt(base, ranks, head_names(base, TASK), TASK)
        state = {n: p for n, p in joint.models[0].state_dict().items() if "lora_" in n}
        heads = {n: p for n, p in joint.models[task].state_dict().items() if "classifier" in n}
        plain.load_state_dict(plain.state_dict() | state | heads)
        expected = plain(input_ids=batch["input_ids"]).logits
        torch.testing.assert_close(joint(task=task, input_ids=batch["input_ids"]).logits, expected)


def test_each_task_alone_throughout_is_separate_runs():
    """The same start, the same steps, no trainable in common: each task ends where it ends by itself."""
    joint, _ = joined(ALONE, ALONE)
    separate = [own_copy(joint, task) for task in range(3)]
    trained = [[p for p in model.parameters() if p.requires_grad] for model in joint.models]
    assert len({p for one in trained for p in one}) == sum(map(len, trained))
    optimizer = torch.optim.AdamW(joint.parameters(), lr=1e-2)
    for _ in range(5):
        sum(loss_of(joint, batch) for batch in together(batches(), range(3))).backward()
        optimizer.step()
        optimizer.zero_grad()
    for model, batch, together_trained in zip(separate, batches(), joint.models, strict=True):
        own = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(5):
            loss_of(model, batch).backward()
            own.step()
            own.zero_grad()
        for (name, one), other in zip(model.named_parameters(), together_trained.parameters(), strict=True):
            torch.testing.assert_close(other, one, msg=name)


def test_every_task_starts_as_it_would_alone():
    joint, ranks = joined(ALONE, ALONE)
    base = bert(2)
    torch.manual_seed(0)
    plain = adapt(base, ranks, head_names(base, TASK), TASK)
    for name in ranks:
        layer = plain.get_submodule(f"base_model.model.{name}")
        assert torch.equal(layer.lora_A["default"].weight, pair(joint, 1, name)[0])


def test_each_export_is_a_plain_lora_that_computes_the_branched_forward(tmp_path):
    joint, _ = joined(TOGETHER, PARTED, ALONE)
    with torch.no_grad():
        for parameter in joint.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    for task, batch in enumerate(batches()):
        joint.models[task].save_pretrained(tmp_path / str(task))
        loaded = PeftModel.from_pretrained(bert(LABELS[task]), tmp_path / str(task)).eval()
        expected = joint(task=task, input_ids=batch["input_ids"]).logits
        found = loaded(input_ids=batch["input_ids"]).logits
        assert (found - expected).abs().max() < 1e-5
        assert found.shape[1] == LABELS[task]


def test_the_flat_gradient_is_that_of_all_pairs_once():
    joint, _ = joined(TOGETHER, PARTED)
    loss_of(joint, next(iter(together(batches(), range(3))))).backward()
    expected = torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros(p.numel())
                          for n, p in joint.named_parameters() if "lora_" in n])  # fmt: skip
    found = shared_gradient(joint)
    assert torch.equal(found, expected)
    assert found.any()
    assert not shared_gradient(joint).any()  # zeroed
