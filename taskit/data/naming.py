"""The names that columns commonly bear."""

import re
from collections.abc import Iterable, Sequence

PAIRS = (
    ("text", "text_pair"),
    ("text1", "text2"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("query", "passage"),
)
INSTRUCTIONS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
)
QUESTIONS = (("question", "answer"), ("input", "output"))  # generation only where no label stands beside them
CAPTIONS = ("caption", "captions", "description", "completion", "answer", "response", "output", "text")
TEXTS = ("text", "sentence", "content", "review", "utterance", "question", "query", "body", "message", "tweet")
LABELS = frozenset({"label", "labels", "class", "target", "category", "intent", "sentiment", "topic", "emotion"})


def listed(columns: Iterable[str]) -> str:
    """Column names as a sentence shows them."""
    return ", ".join(f"'{column}'" for column in columns)


def find_labels(columns: Sequence[str]) -> list[str]:
    """Columns called exactly like a label, else those with such a word in their name (fine_label, labelId)."""
    return [column for column in columns if column.lower() in LABELS] or [c for c in columns if is_label(c)]


def is_label(column: str) -> bool:
    """Whether a word of the name means a label."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    return bool(LABELS & set(re.split(r"[\W_]+", spaced.lower())))


def is_text(column: str) -> bool:
    """Whether the name belongs to a text or to one of a pair."""
    return column.lower() in TEXTS or any(column.lower() in pair for pair in PAIRS)


def find_text(columns: Sequence[str]) -> str | None:
    """The column with the most telling name for a text."""
    return _first_named(columns, TEXTS)


def _first_named(columns: Sequence[str], names: Sequence[str]) -> str | None:
    by_name = {column.lower(): column for column in columns}
    return next((by_name[name] for name in names if name in by_name), None)


def find_caption(columns: Sequence[str]) -> str | None:
    """The column with the most telling name for what is to be written about an image."""
    return _first_named(columns, CAPTIONS)


def find_pair(columns: Sequence[str], pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The first known pair of names of which both are there."""
    by_name = {column.lower(): column for column in columns}
    return next(((by_name[a], by_name[b]) for a, b in pairs if a in by_name and b in by_name), None)
