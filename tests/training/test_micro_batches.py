"""Micro-batches train what the whole batch trains; the whole batch at once is the reference throughout."""

import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from taskit.backbone.loading import load_model
from taskit.backbone.processors import make_collator
from taskit.data import load
from taskit.planning.planner import uniform_plan
from taskit.planning.recipe import Recipe
from taskit.step.loss import loss_of
from taskit.training.batches import Batches
from taskit.training.checkpoint import WEIGHTS, find_checkpoints
from taskit.training.loop import TrainingLoop
from taskit.training.run_folder import RunFolder
from taskit.training.trainer import train
from tests.training.test_processes import two_processes
from tests.world import FILLERS, TOPICS, write_bert, write_llama

CLASSIFIER, WRITER = "classifier", "writer"
ROWS = 16  # of an optimizer step
LINES = {CLASSIFIER: 132, WRITER: 134}  # of which 96 train


def words(choose, most, topic="animals"):
    return " ".join(choose.choices([*FILLERS, *TOPICS[topic].split()], k=choose.randint(1, most)))


def write_rows(path, model, count):
    """Texts of different lengths; those to be written, too, so that rows differ in their learned tokens."""
    choose, lines = random.Random(0), []
    for n in range(count):
        topic = sorted(TOPICS)[n % 2]
        if model == WRITER:
            lines.append(json.dumps({"prompt": f"{words(choose, 9)} {n}", "completion": words(choose, 11)}))
        else:
            lines.append(f"{words(choose, 25, topic)} {n},{topic}")
    path.write_text("\n".join(["text,label"] * (model == CLASSIFIER) + lines) + "\n")
    return path


@pytest.fixture(scope="module", params=[CLASSIFIER, WRITER])
def plan(request, tmp_path_factory):
    """Six steps of 16 rows in double precision, where no difference is rounding."""
    folder, model = tmp_path_factory.mktemp("micro-batches"), request.param
    backbone = (write_bert if model == CLASSIFIER else write_llama)(folder / model)
    source = write_rows(folder / ("rows.csv" if model == CLASSIFIER else "rows.jsonl"), model, LINES[model])
    recipe = Recipe(epochs=1, batch_size=ROWS, learning_rate=5e-3)
    found = uniform_plan(source, str(backbone), 4, recipe=recipe)
    wide = replace(found.backbone, dtype="float64")
    return replace(found, backbone=wide, budget_bytes=4 * found.budget_bytes)  # it was priced in float32


def outcome(folder):
    """The loss of every step, and the weights after the last."""
    run = RunFolder(folder)
    losses = [event.loss for event in run.read_events() if event.loss is not None]
    return losses, load_file(find_checkpoints(run.checkpoints)[-1] / WEIGHTS)


def assert_same(found, expected):
    (losses, weights), (true_losses, true_weights) = found, expected
    assert losses == pytest.approx(true_losses, abs=2e-6)  # they are written with six digits
    assert weights.keys() == true_weights.keys()
    for name, true in true_weights.items():
        assert torch.allclose(weights[name], true, atol=1e-6, rtol=0), name


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(plan, folder)
    return outcome(folder)


@pytest.mark.parametrize("size", [8, 1, 6])
def test_micro_batches_train_what_the_whole_batch_trains(plan, whole, size, tmp_path):
    """The third is ragged: 6 + 6 + 4."""
    train(replace(plan, training=plan.training.passing(size)), tmp_path / "run")
    assert len(whole[0]) == 6
    assert_same(outcome(tmp_path / "run"), whole)


def test_two_processes_train_what_one_trains_that_passes_the_rows_of_both(plan, whole, tmp_path):
    """Each takes 8 rows a step, 3 at once, and the rows of the two hold different numbers of learned tokens."""
    half = replace(plan, training=replace(plan.training, batch_size=8, micro_batch=3, gradient_accumulation=None))
    two_processes(half, tmp_path)
    assert_same(outcome(tmp_path / "run"), whole)


@pytest.fixture(scope="module")
def material(plan):
    data = load(plan.data.source)
    return [dict(row) for row in data.train], make_collator(plan.backbone, plan.data.task, None)


def lengths(batch):
    return batch["attention_mask"].sum(1).tolist()


def test_rows_of_like_length_pass_together_and_none_is_lost(material):
    rows, collator = material
    found = collator.micro_batches(rows[:32], 11)
    assert [len(batch["labels"]) for batch in found] == [11, 11, 10]
    flat = [length for batch in found for length in lengths(batch)]
    assert flat == sorted(flat, reverse=True)
    assert sorted(flat) == sorted(lengths(collator(rows[:32])))

    def texts(batch):
        pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        return [tuple(ids[mask.bool()].tolist()) for ids, mask in pairs]

    assert sorted(text for batch in found for text in texts(batch)) == sorted(texts(collator(rows[:32])))
    padded = sum(batch["input_ids"].numel() for batch in found)
    assert padded < collator(rows[:32])["input_ids"].numel()


@pytest.mark.parametrize("size", [32, 40])
def test_rows_keep_their_order_where_all_pass_at_once(material, size):
    rows, collator = material
    (found,) = collator.micro_batches(rows[:32], size)
    for name, tensor in collator(rows[:32]).items():
        assert torch.equal(found[name], tensor)


def test_a_step_takes_the_same_rows_whatever_passes_at_once(plan, material):
    _, collator = material
    rows, _ = load(plan.data.source).validated(plan.seed)

    def of(size):
        batches = Batches(collator, plan.training.passing(size), Accelerator(), plan.seed)
        return [
            sorted(tuple(ids[mask.bool()].tolist()) for batch in step for ids, mask in
                   zip(batch["input_ids"], batch["attention_mask"], strict=True))
            for step in batches.steps(rows, 1)
        ]  # fmt: skip

    assert of(5) == of(ROWS)


class Reduced:
    """An accelerator whose mean over the processes is known."""

    def __init__(self, mean):
        self.mean, self.device = mean, "cpu"

    def reduce(self, _tensor, how):
        assert how == "mean"
        return torch.tensor(self.mean)


def test_gradients_of_processes_are_weighted_by_their_targets(plan, material):
    """The mean over two processes of what each shares in is the mean over all tokens of all rows, computed from
    logits; where each would take its own mean, it is not."""
    rows, collator = material
    task = plan.data.task
    model = load_model(plan.backbone, task=task, labels=plan.data.labels)
    short = sorted(range(len(rows)), key=lambda k: len(rows[k].get("completion", rows[k].get("text", ""))))
    of_each = [
        collator.micro_batches([rows[k] for k in short[:10]], 4),
        collator.micro_batches([rows[k] for k in short[-14:]], 14),
    ]
    counted = [[targets(batch) for batch in step] for step in of_each]
    mean = sum(map(sum, counted)) / 2
    total = 0.0
    for step in of_each:
        loop = SimpleNamespace(model=model, accelerator=Reduced(mean))
        shares = TrainingLoop.loss_shares(loop, step)
        total += sum(share * loss_of(model, batch).item() for share, batch in zip(shares, step, strict=True)) / 2
    losses = torch.cat([token_losses(model, batch) for step in of_each for batch in step])
    assert total == pytest.approx(losses.mean().item(), rel=1e-5)
    own = sum(torch.cat([token_losses(model, batch) for batch in step]).mean().item() for step in of_each) / 2
    assert own != pytest.approx(losses.mean().item(), rel=1e-4)


def targets(batch):
    labels = batch["labels"]
    return len(labels) if labels.ndim == 1 else sum(int(token) != -100 for row in labels for token in row[1:])


@torch.no_grad()
def token_losses(model, batch):
    """The loss of every target, from the logits."""
    logits = model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
    labels = batch["labels"]
    if labels.ndim == 2:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        logits, labels = logits[labels != -100], labels[labels != -100]
    return cross_entropy(logits, labels, reduction="none")
