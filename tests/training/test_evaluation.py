"""Scores of classes against hand-counted ones."""

import pytest
import torch

from taskit.training.evaluation import classification_scores, target_count
from taskit.training.scores import Scores


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
    scores = Scores(0.5, macro_f1=0.4, confusion=((1, 0), (2, 1)))
    as_json = {"value": 0.5, "macro_f1": 0.4, "confusion": [[1, 0], [2, 1]], "perplexity": None}
    assert Scores.from_dict(as_json) == scores


@pytest.mark.parametrize(("encoder_decoder", "count"), [(False, 3), (True, 4)])
def test_targets_are_counted_as_the_loss_counts_them(encoder_decoder, count):
    """A decoder predicts no first token, so that its label is left out by the shift."""
    labels = torch.tensor([[5, 6, -100], [-100, 7, 8]])
    assert target_count({"labels": labels}, encoder_decoder) == count
    assert target_count({"labels": torch.tensor([1, 2])}, False) == 2
    assert target_count({"labels": torch.rand(2, 3)}, False) == 2
