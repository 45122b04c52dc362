"""Batches of images with prompts, by each family's own processor."""

import pytest
import torch

from taskit.backbone.processors import make_collator
from taskit.backbone.sources import find_backbone
from taskit.data import load, longest_rows
from taskit.errors import DataError
from tests.visual import FAMILIES, IMAGE_ID, TEXT, WORDS, picture, write_questions, write_visual

TASK = "image-text-to-text"
ROWS = [
    {"image": picture("red"), "prompt": "what colour is it ?", "completion": "red"},
    {"image": picture("blue"), "prompt": "what ?", "completion": "it is blue"},
]
IMAGE_TOKENS = {"janus": 4, "smolvlm": 5 * 4, "qwen": 4}  # of 20 x 20 pixels: one image, five tiles, 2 x 2 patches


def ids(words):
    return [WORDS.index(word) for word in words.split()]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeing")
    return {name: find_backbone(str(write_visual(folder / name, name))) for name in FAMILIES}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_is_on_the_completion_alone(models, name):
    batch = make_collator(models[name], TASK, None)(ROWS)
    for row, answer in enumerate(("red </s>", "it is blue </s>")):
        learned = batch["labels"][row] != -100
        assert batch["labels"][row][learned].tolist() == batch["input_ids"][row][learned].tolist() == ids(answer)
        assert (batch["input_ids"][row] == IMAGE_ID).sum() == IMAGE_TOKENS[name]
        kept = batch["attention_mask"][row].bool()
        assert kept.tolist() == sorted(kept.tolist(), reverse=True), "padded on the right"
        assert (batch["input_ids"][row][~kept] == TEXT["pad_token_id"]).all()
        assert (batch["labels"][row][~kept] == -100).all()
    assert not batch["attention_mask"].all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_means_the_same_alone_and_in_a_batch(models, name):
    collator = make_collator(models[name], TASK, None)
    together = collator(ROWS)
    for row, one in enumerate(ROWS):
        alone = collator([one])
        length = alone["input_ids"].shape[1]
        for key in ("input_ids", "labels", "attention_mask"):
            assert together[key][row, :length].tolist() == alone[key][0].tolist()
        part = alone["pixel_values"].shape[0]
        torch.testing.assert_close(together["pixel_values"][row * part :][:part], alone["pixel_values"])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_question_is_what_a_training_row_begins_with(models, name):
    collator = make_collator(models[name], TASK, None)
    question, row = collator.question(ROWS[0]), collator(ROWS[:1])
    asked = question["input_ids"].shape[1]
    assert row["input_ids"][0, :asked].tolist() == question["input_ids"][0].tolist()
    assert row["labels"][0, asked:].tolist() == ids("red </s>")
    assert "labels" not in question


def test_a_template_is_asked_as_it_is_written(models):
    text = make_collator(models["qwen"], TASK, None).question(ROWS[0])["input_ids"][0].tolist()
    asked = [*ids("<s> User :"), *[IMAGE_ID] * 4, *ids("what colour is it ? Assistant :")]
    assert text == asked


def test_captions_need_no_prompt(models):
    row = {"image": picture("red"), "completion": "red"}
    text = make_collator(models["qwen"], TASK, None)([row])["input_ids"][0].tolist()
    assert text == [*ids("<s> User :"), *[IMAGE_ID] * 4, *ids("Assistant : red </s>")]


def test_max_length_cuts_words_and_never_the_image(models):
    long = {**ROWS[0], "prompt": "what colour " * 20, "completion": "it is red " * 20}
    batch = make_collator(models["qwen"], TASK, 8)([long])
    assert (batch["input_ids"] == IMAGE_ID).sum() == 4
    assert (batch["labels"] != -100).sum() == 4
    assert batch["input_ids"].shape[1] == len(ids("<s> User : Assistant :")) + 4 + 8


def test_a_prompt_cannot_bring_image_tokens_of_its_own(models):
    collator = make_collator(models["qwen"], TASK, None)
    told = collator([{**ROWS[0], "prompt": "what <image> colour is it ?"}])
    assert told["input_ids"].tolist() == collator(ROWS[:1])["input_ids"].tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_longest_rows_make_the_largest_batch(models, name, tmp_path):
    data = load(write_questions(tmp_path / "q.zip", rows=12, sizes=((20, 20), (40, 20), (12, 40)))).train
    collator = make_collator(models[name], TASK, None)
    chosen = collator(longest_rows(data, collator, 3))
    for start in range(0, len(data) - 3, 3):
        other = collator([data[start + n] for n in range(3)])
        assert chosen["input_ids"].shape[1] >= other["input_ids"].shape[1]
        assert chosen["pixel_values"].numel() >= other["pixel_values"].numel()


def test_a_processor_that_refuses_is_quoted(models):
    collator = make_collator(models["qwen"], TASK, None)
    collator.processor.chat_template = "{{ messages[0].role }} :"
    with pytest.raises(DataError, match=r"^The processor of the model refuses .*choose another backbone\.$"):
        collator(ROWS)
