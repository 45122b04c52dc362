"""Scores of classes against hand-counted ones."""

import pytest
import torch

from taskit.step.loss import row_losses
from taskit.step.targets import target_count
from taskit.training.evaluation import HARDEST, classification_scores, evaluate
from taskit.training.results import HardRow, Scores
from tests.tiny import tiny_model


def test_scores_of_six_rows_by_hand():
    true, predicted = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 1, 0])
    scores = classification_scores(predicted, true, 3)
    assert scores.value == pytest.approx(4 / 6)
    assert scores.confusion == ((2, 1, 0), (0, 2, 0), (1, 0, 0))
    assert scores.macro_f1 == pytest.approx((4 / 6 + 4 / 5 + 0) / 3)  # F1 = 2 tp / (2 tp + fp + fn)


def test_a_matrix_nobody_reads_is_left_out():
    labels = torch.arange(101)
    scores = classification_scores(labels, labels, 101)
    assert (scores.confusion, scores.value, scores.macro_f1) == (None, 1.0, 1.0)


def test_scores_come_back_from_json():
    scores = Scores(0.5, macro_f1=0.4, confusion=((1, 0), (2, 1)), hardest=(HardRow(3, 1.5, "cat", "dog"),))
    hardest = [{"row": 3, "loss": 1.5, "label": "cat", "answer": "dog"}]
    as_json = {"value": 0.5, "macro_f1": 0.4, "confusion": [[1, 0], [2, 1]], "perplexity": None, "hardest": hardest}
    assert Scores.from_dict(as_json) == scores


@pytest.mark.parametrize(("encoder_decoder", "count"), [(False, 3), (True, 4)])
def test_targets_are_counted_as_the_loss_counts_them(encoder_decoder, count):
    """A decoder predicts no first token, so that its label is left out by the shift."""
    labels = torch.tensor([[5, 6, -100], [-100, 7, 8]])
    assert target_count({"labels": labels}, encoder_decoder) == count
    assert target_count({"labels": torch.tensor([1, 2])}, False) == 2
    assert target_count({"labels": torch.rand(2, 3)}, False) == 2


@pytest.mark.parametrize("chunk", [None, 4, 64])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_the_losses_of_rows_add_up_to_the_models_own(name, chunk):
    model, generator = tiny_model(name), torch.Generator().manual_seed(0)
    model.config.decoder_start_token_id = model.config.pad_token_id = 0  # T5 has no defaults
    ids = torch.randint(3, 50, (3, 7), generator=generator)
    labels = ids.clone()
    labels[0, 4:] = labels[1, :3] = -100
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels)
    sums, counts = row_losses(model, {"input_ids": ids, "labels": labels}, chunk)
    assert int(counts.sum()) == target_count({"labels": labels}, model.config.is_encoder_decoder)
    assert sums.sum().item() / int(counts.sum()) == pytest.approx(output.loss.item(), rel=1e-5)
    with torch.no_grad():
        alone = [model(input_ids=ids[n : n + 1], labels=labels[n : n + 1]).loss.item() for n in range(3)]
    assert (sums / counts).tolist() == pytest.approx(alone, rel=1e-4)
    scores = evaluate(
        model,
        [{"input_ids": ids[:2], "labels": labels[:2]}, {"input_ids": ids[2:], "labels": labels[2:]}],
        "text-generation",
    )
    assert scores.value == pytest.approx(output.loss.item(), rel=1e-5)
    assert [row.row for row in scores.hardest] == sorted(range(3), key=lambda n: -alone[n])


def test_the_hardest_rows_are_named(tiny_bert, sentences):
    tiny_bert.config.id2label = dict(enumerate("abc"))
    with torch.no_grad():
        logits = tiny_bert(**sentences).logits
    losses = [-(row.log_softmax(-1)[label]).item() for row, label in zip(logits, sentences["labels"], strict=True)]
    halves = [{name: value[part] for name, value in sentences.items()} for part in (slice(0, 5), slice(5, 12))]
    hardest = evaluate(tiny_bert, halves, "text-classification").hardest
    assert [row.row for row in hardest] == sorted(range(12), key=lambda n: -losses[n])[:HARDEST]
    for row in hardest:
        assert row.loss == pytest.approx(losses[row.row], rel=1e-4)
        assert row.label == "abc"[sentences["labels"][row.row]]
        assert row.answer == "abc"[logits[row.row].argmax()]
