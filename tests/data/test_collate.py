"""Batches against what a reader computes by hand, with real tokenizers built here."""

import pytest
import torch
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, ViTImageProcessorPil

from taskit.data import Collator, load, longest, longest_rows, most_learned, row_sizes
from taskit.errors import DataError
from tests.data.conftest import image_files, write_files

WORDS = ["<pad>", "<unk>", "<s>", "</s>", *"abcdefgh", "user", "assistant", ":", "<|user|>", "<|assistant|>"]
PAD, BOS, EOS = 0, 2, 3
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


def _ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def _tokenizer(closing: bool = False, **options) -> PreTrainedTokenizerFast:
    """One token a word; BOS before each text, and EOS after it where `closing`, as in T5 or BERT."""
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    end = " </s>" if closing else ""
    core.post_processor = processors.TemplateProcessing(
        single=f"<s> $A{end}",
        pair=f"<s> $A </s> $B:1{end and end + ':1'}",
        special_tokens=[("<s>", BOS), ("</s>", EOS)],
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", **options}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def test_text_classification():
    collate = Collator("text-classification", _tokenizer(closing=True))
    batch = collate([{"text": "a b c", "label": 1}, {"text": "d", "label": 0}])
    assert batch["input_ids"].tolist() == [_ids("<s> a b c </s>"), _ids("<s> d </s> <pad> <pad>")]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["labels"].dtype == torch.long


def test_pairs_and_truncation():
    collate = Collator("text-classification", _tokenizer(closing=True), max_length=6)
    rows = [{"text": "a b", "text_pair": "c", "label": 0}, {"text": "a b c d e", "text_pair": "f", "label": 1}]
    collate.processor.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    batch = collate(rows)
    assert batch["input_ids"].tolist() == [_ids("<s> a b </s> c </s>"), _ids("<s> a b </s> f </s>")]
    assert batch["token_type_ids"].tolist()[0] == [0, 0, 0, 0, 1, 1]


def test_rows_without_a_label_give_no_labels():
    assert "labels" not in Collator("text-classification", _tokenizer())([{"text": "a"}])


@pytest.mark.parametrize(("limit", "expected"), [(None, 512), (64, 64), (1000, 512)])
def test_default_length(limit, expected):
    tokenizer = _tokenizer(**({"model_max_length": limit} if limit else {}))
    assert Collator("text-classification", tokenizer).max_length == expected


def test_completion_alone_is_learned():
    collate = Collator("text-generation", _tokenizer())
    batch = collate([{"prompt": "a b", "completion": "c d"}, {"prompt": "a", "completion": "e"}])
    assert batch["input_ids"].tolist() == [_ids("<s> a b c d </s>"), _ids("<s> a e </s> <pad> <pad>")]
    assert batch["labels"].tolist() == [[-100] * 3 + _ids("c d </s>"), [-100] * 2 + _ids("e </s>") + [-100] * 2]
    assert batch["attention_mask"].tolist()[1] == [1, 1, 1, 1, 0, 0]


def test_the_end_stays_a_target_where_it_also_pads():
    batch = Collator("text-generation", _tokenizer(pad_token=None))(
        [{"prompt": "a", "completion": "b c"}, {"prompt": "a", "completion": "b"}]
    )
    assert batch["input_ids"].tolist()[1] == _ids("<s> a b </s> </s>")
    assert batch["labels"].tolist()[1] == [-100, -100, *_ids("b </s>"), -100]


def test_a_closing_tokenizer_does_not_end_before_the_answer():
    (row,) = Collator("text-generation", _tokenizer(closing=True)).encode([{"prompt": "a", "completion": "b"}])
    assert row["input_ids"] == _ids("<s> a b </s>")


def test_plain_text_is_all_learned():
    (row,) = Collator("text-generation", _tokenizer()).encode([{"text": "a b"}])
    assert row["input_ids"] == row["labels"] == _ids("<s> a b </s>")


@pytest.mark.parametrize("prompt", [0, 1, 3, 20])
@pytest.mark.parametrize("completion", [1, 4, 20])
@pytest.mark.parametrize("limit", [1, 2, 5, 8])
def test_truncation_keeps_a_target(prompt, completion, limit):
    row = {"prompt": " ".join(["a"] * prompt), "completion": " ".join(["b"] * completion)}
    (encoded,) = Collator("text-generation", _tokenizer(), limit).encode([row])
    assert len(encoded["input_ids"]) == min(limit, 1 + prompt + completion + 1)
    targets = sum(label != -100 for label in encoded["labels"])
    assert targets >= min(max(limit // 2, 1), completion + 1)
    if limit - targets >= 2:
        assert encoded["input_ids"][0] == BOS


def test_truncation_keeps_the_end_of_the_prompt():
    (row,) = Collator("text-generation", _tokenizer(), 5).encode([{"prompt": "a b c d e f", "completion": "g"}])
    assert row["input_ids"] == _ids("<s> e f g </s>")


TALK = [
    {"role": "user", "content": "a b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d"},
    {"role": "assistant", "content": "e f"},
]


def test_messages_through_the_template():
    (row,) = Collator("text-generation", _tokenizer(chat_template=TEMPLATE)).encode([{"messages": TALK}])
    prompt = _ids("<|user|> a b </s> <|assistant|> c </s> <|user|> d </s> <|assistant|>")
    assert row["input_ids"] == prompt + _ids("e f </s>")
    assert row["labels"] == [-100] * len(prompt) + _ids("e f </s>")


def test_messages_whose_template_replays_otherwise():
    template = TEMPLATE.replace("<|assistant|> {% endif %}", "<|assistant|> <unk> {% endif %}")
    (row,) = Collator("text-generation", _tokenizer(chat_template=template)).encode([{"messages": TALK[:2]}])
    assert [label for label in row["labels"] if label != -100] == _ids("c </s>")


def test_messages_without_a_template():
    (row,) = Collator("text-generation", _tokenizer()).encode([{"messages": TALK[:2]}])
    assert [label for label in row["labels"] if label != -100] == _ids("c </s>")


def test_a_template_that_refuses():
    collate = Collator("text-generation", _tokenizer(chat_template="{{ raise_exception('no') }}"))
    with pytest.raises(DataError, match=r"chat template.*no.*user"):
        collate([{"messages": TALK}])


def test_encoder_decoder():
    collate = Collator("text-generation", _tokenizer(closing=True), max_length=4, encoder_decoder=True)
    batch = collate([{"prompt": "a b", "completion": "c"}, {"prompt": "d", "completion": "e f g h a"}])
    assert batch["input_ids"].tolist() == [_ids("<s> a b </s>"), _ids("<s> d </s> <pad>")]
    assert batch["labels"].tolist() == [[*_ids("c </s>"), -100, -100], _ids("e f g h")]
    with pytest.raises(DataError, match="prompt and completion"):
        collate([{"text": "a"}])


def test_longest_rows():
    texts = ["a", "a b c d", "a b", "a b c", "a b c d e"]
    data = Dataset.from_dict({"text": texts, "label": [0, 1, 0, 1, 0]})
    collate = Collator("text-classification", _tokenizer())
    assert [row["text"] for row in longest_rows(data, collate, 2)] == ["a b c d e", "a b c d"]
    assert len(longest_rows(data, collate, 99)) == 5


def test_longest_rows_pad_both_sides():
    data = Dataset.from_dict({"prompt": ["a", "a b c d", "a b"], "completion": ["a b c d e f g", "a", "b c"]})
    collate = Collator("text-generation", _tokenizer(), encoder_decoder=True)
    batch = collate(longest_rows(data, collate, 2))
    full = collate(list(data))
    assert batch["input_ids"].shape[1] == full["input_ids"].shape[1]
    assert batch["labels"].shape[1] == full["labels"].shape[1]
    assert [row["prompt"] for row in longest_rows(data, collate, 1)] == ["a"]


def test_images(tmp_path):
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    data = load(write_files(tmp_path / "set", image_files(3)))
    collate = Collator("image-classification", processor)
    batch = collate(longest_rows(data.train, collate, 3))
    assert set(batch) == {"pixel_values", "labels"}
    assert batch["pixel_values"].shape == (3, 3, 16, 16)
    assert batch["labels"].tolist() == data.train["label"][:3]
    expected = processor(images=data.train[1]["image"], return_tensors="pt")["pixel_values"][0]
    assert torch.equal(batch["pixel_values"][1], expected)


def test_grey_images_become_rgb():
    grey = Image.new("L", (8, 8))
    collate = Collator("image-classification", ViTImageProcessorPil(size={"height": 8, "width": 8}))
    assert collate([{"image": grey}])["pixel_values"].shape == (1, 3, 8, 8)


def test_how_many_tokens_of_a_row_are_learned():
    """A decoder predicts all but its first token, of a completion all; an encoder-decoder every label."""
    data = Dataset.from_list([{"prompt": "a b", "completion": "c d e"}, {"prompt": "a", "completion": "b"}])
    decoder, encoder_decoder = (
        Collator("text-generation", _tokenizer(closing=True), encoder_decoder=kind) for kind in (False, True)
    )
    assert [size.learned for size in row_sizes(data, decoder)] == [4, 2]  # c d e </s>, and b </s>
    assert [size.learned for size in row_sizes(data, decoder)] == [
        int((decoder([row])["labels"][:, 1:] != -100).sum()) for row in data
    ]
    assert [size.learned for size in row_sizes(data, encoder_decoder)] == [
        int((encoder_decoder([row])["labels"] != -100).sum()) for row in data
    ]


def test_the_most_learned_tokens_need_not_be_in_the_longest_rows():
    data = Dataset.from_list([{"prompt": "a b c d e f", "completion": "a"}, {"prompt": "a", "completion": "b c d"}])
    sizes = row_sizes(data, Collator("text-generation", _tokenizer()))
    assert longest(sizes, 1) == [0]
    assert most_learned(sizes, 1) == sizes[1].learned > sizes[0].learned
    assert most_learned(sizes, 5) == sizes[0].learned + sizes[1].learned


def test_micro_batches_put_like_lengths_together():
    collate = Collator("text-generation", _tokenizer())
    rows = [{"text": text} for text in ("a", "a b c d", "a b", "a b c", "b")]
    parts = collate.micro_batches(rows, 2)
    assert [tuple(part["input_ids"].shape) for part in parts] == [(2, 6), (2, 4), (1, 3)]
    assert [part["attention_mask"].sum().item() for part in parts] == [11, 7, 3]  # all tokens of all rows
    (whole,) = collate.micro_batches(rows, 5)
    assert all(torch.equal(whole[name], tensor) for name, tensor in collate(rows).items())


def test_rows_with_nothing_to_learn_are_left_out_and_counted(tmp_path):
    text = "\n".join(f'{{"text": "{words}"}}' for words in ("a", "a b", "b", "a b c", "c d", "d e f"))
    (tmp_path / "rows.jsonl").write_text(text)
    data = load(tmp_path / "rows.jsonl", eval_fraction=0.34)
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    bare = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", pad_token="<pad>")  # nothing is added
    found = data.learnable(Collator("text-generation", bare))
    assert sorted([*found.train["text"], *found.evaluation["text"]]) == ["a b", "a b c", "c d", "d e f"]
    (dropped,) = found.report.dropped
    assert (dropped.reason, dropped.count) == ("not one token to learn", 2)
    assert (found.info.train_rows, found.info.eval_rows) == (len(found.train), len(found.evaluation))
    assert found.info.fingerprint == data.info.fingerprint
    assert data.learnable(Collator("text-generation", _tokenizer())) is data
    (tmp_path / "short.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c"}')
    with pytest.raises(DataError, match="No training row has a token to learn"):
        load(tmp_path / "short.jsonl").learnable(Collator("text-generation", bare))
