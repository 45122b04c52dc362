"""Roles by name, by content, and by the user's word."""

import pytest
from pandas import DataFrame

from taskit.data.columns import recognise
from taskit.errors import DataError

WORDS = [f"some words here {n}" for n in range(12)]
OTHER = [f"other words there {n}" for n in range(12)]
TEXTS, IMAGES, GENERATION = "text-classification", "image-classification", "text-generation"
CLASSES = ["a", "b", "c"] * 4
TALK = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]] * 12
PICTURE = [b"bytes"] * 12


@pytest.mark.parametrize(
    ("columns", "task", "roles"),
    [
        ({"text": WORDS, "label": CLASSES}, TEXTS, {"text": "text", "label": "label"}),
        ({"Review": WORDS, "Sentiment": CLASSES}, TEXTS, {"text": "Review", "label": "Sentiment"}),
        ({"utterance": WORDS, "intent": CLASSES}, TEXTS, {"text": "utterance", "label": "intent"}),
        ({"phrase": WORDS, "class": range(12)}, TEXTS, {"text": "phrase", "label": "class"}),
        ({"text": WORDS, "label": CLASSES, "label_text": CLASSES}, TEXTS, {"text": "text", "label": "label"}),
        ({"id": range(12), "text": WORDS, "fine_label": CLASSES}, TEXTS, {"text": "text", "label": "fine_label"}),
        ({"text": WORDS, "verdict": CLASSES}, TEXTS, {"text": "text", "label": "verdict"}),
        (
            {"key": [f"k{n}" for n in range(12)], "phrase": WORDS, "label": CLASSES},
            TEXTS,
            {"text": "phrase", "label": "label"},
        ),
        (
            {"sentence1": WORDS, "sentence2": OTHER, "label": CLASSES},
            TEXTS,
            {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
        ),
        (
            {"premise": WORDS, "hypothesis": OTHER, "label": CLASSES},
            TEXTS,
            {"text": "premise", "text_pair": "hypothesis", "label": "label"},
        ),
        (
            {"question": WORDS, "answer": OTHER, "label": CLASSES},
            TEXTS,
            {"text": "question", "text_pair": "answer", "label": "label"},
        ),
        (
            {"left": WORDS, "right": OTHER, "label": CLASSES},
            TEXTS,
            {"text": "left", "text_pair": "right", "label": "label"},
        ),
        ({"picture": PICTURE, "label": CLASSES, "caption": WORDS}, IMAGES, {"image": "picture", "label": "label"}),
        ({"prompt": WORDS, "completion": OTHER}, GENERATION, {"prompt": "prompt", "completion": "completion"}),
        (
            {"instruction": WORDS, "output": OTHER, "category": CLASSES},
            GENERATION,
            {"prompt": "instruction", "completion": "output"},
        ),
        ({"question": WORDS, "answer": OTHER}, GENERATION, {"prompt": "question", "completion": "answer"}),
        ({"messages": TALK, "source": CLASSES}, GENERATION, {"messages": "messages"}),
        ({"text": WORDS}, GENERATION, {"text": "text"}),
    ],
)
def test_recognised(columns, task, roles):
    found = recognise(DataFrame({name: list(values) for name, values in columns.items()}, dtype=object))
    assert (found.task, dict(found.roles)) == (task, roles)


@pytest.mark.parametrize(
    ("chosen", "roles"),
    [
        ({"label": "kind"}, {"text": "title", "text_pair": "remark", "label": "kind"}),
        ({"label": "kind", "text": "remark"}, {"text": "remark", "label": "kind"}),
        (
            {"label": "group", "text": "title", "text_pair": "remark"},
            {"text": "title", "text_pair": "remark", "label": "group"},
        ),
        ({"label": "group", "text_pair": "title"}, {"text": "remark", "text_pair": "title", "label": "group"}),
        ({"prompt": "title", "completion": "remark"}, {"prompt": "title", "completion": "remark"}),
    ],
)
def test_the_user_decides(chosen, roles):
    frame = DataFrame({"title": WORDS, "remark": OTHER, "kind": CLASSES, "group": CLASSES}, dtype=object)
    with pytest.raises(DataError, match="'kind', 'group'"):
        recognise(frame)
    assert dict(recognise(frame, chosen).roles) == roles


def test_only_text_named_means_plain_text():
    frame = DataFrame({"page": WORDS, "number": range(12)}, dtype=object)
    assert recognise(frame, {"text": "page"}).roles == (("text", "page"),)


def test_a_guess_and_unused_columns_are_said():
    found = recognise(DataFrame({"text": WORDS, "verdict": CLASSES, "id": range(12)}, dtype=object))
    assert [word in warning for word, warning in zip(("'verdict'", "'id'"), found.warnings, strict=True)] == [
        True
    ] * 2


def test_many_texts_are_ambiguous():
    frame = DataFrame({"a": WORDS, "b": OTHER, "c": WORDS[::-1], "label": CLASSES}, dtype=object)
    with pytest.raises(DataError, match=r"'a', 'b', 'c'.*--column text="):
        recognise(frame)
