"""Single cells: what kind of thing a column holds, and each role's reading of a cell."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from taskit.errors import DataError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d+")
MAX_FLOAT_CLASSES = 20


class UnusableError(Exception):
    """A cell that its role cannot use; the text is the reason that reports give."""


def is_missing(cell: object) -> bool:
    """None, NaN, blank text and empty lists."""
    if isinstance(cell, float):
        return math.isnan(cell)
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or (isinstance(cell, (list, dict, bytes)) and not cell)


def kind(values: Sequence[object]) -> str:
    """What a column holds: "empty", "image", "messages", "number" (also as text, also bool), "text" or "other"."""
    present = [cell for cell in values if not is_missing(cell)]
    if not present:
        return "empty"
    tests = {"image": _is_image, "messages": _is_messages, "number": _is_number, "text": lambda c: isinstance(c, str)}
    return next((name for name, test in tests.items() if all(map(test, present))), "other")


def _is_image(cell: object) -> bool:
    return isinstance(cell, bytes) or (isinstance(cell, dict) and set(cell) == {"bytes", "path"})


def _is_messages(cell: object) -> bool:
    return isinstance(cell, list) and all(
        isinstance(turn, dict) and {"role", "content"} <= set(turn) for turn in cell
    )


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float)) or (isinstance(cell, str) and bool(_NUMBER.fullmatch(cell.strip())))


def is_integer(label: str) -> bool:
    """Whether a label is an integer, so that labels sort by value: 2 before 10."""
    return bool(_INTEGER.fullmatch(label))


def read_text(cell: object) -> str:
    """The text as it stands; lone surrogates, which no tokenizer takes, become question marks."""
    text = str(cell)
    return text.encode("utf-8", "replace").decode("utf-8")


def read_label(cell: object) -> str:
    """A class name: text without the spaces around it, whole floats as integers."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return read_text(cell).strip()


def read_image(cell: Any) -> bytes:
    """Encoded bytes; a path is never followed, since an upload could name any file of this machine."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if content is None:
        raise UnusableError("missing image")
    if not content:
        raise UnusableError("empty image")
    return content


def read_messages(cell: Any) -> list[dict[str, str]]:
    """The turns up to the last answer of the assistant, which is what training learns."""
    turns = [{"role": str(turn["role"]), "content": read_text(turn["content"] or "")} for turn in cell]
    while turns and (turns[-1]["role"] != "assistant" or not turns[-1]["content"].strip()):
        turns.pop()
    if len(turns) < 2:
        raise UnusableError("empty question or answer in messages")
    return turns


READERS: dict[str, Callable] = {"image": read_image, "label": read_label, "messages": read_messages}


def read_cell(role: str, cell: object) -> object:
    """A cell as its role needs it; raises UnusableError with the reason, "empty ROLE" where there is nothing."""
    if is_missing(cell):
        raise UnusableError("unreadable image" if role == "image" else f"empty {role}")
    return READERS.get(role, read_text)(cell)


def check_labels(values: Sequence[object], column: str) -> None:
    """Refuse columns that no classifier can learn: several labels in a row, or measured numbers."""
    present: list[Any] = [cell for cell in values if not is_missing(cell)]
    if any(isinstance(cell, (list, dict, bytes)) for cell in present):
        raise DataError(f"The column '{column}' does not hold one label per row: give each row a single class.")
    if kind(values) != "number":
        return
    numbers = [float(cell) for cell in present]
    distinct = set(numbers)
    fractions = any(number != math.floor(number) for number in distinct if math.isfinite(number))
    if fractions and len(distinct) > min(MAX_FLOAT_CLASSES, len(numbers) / 2):
        raise DataError(
            f"The label column '{column}' holds {len(distinct)} different decimal numbers, and regression is not "
            f"supported: turn them into classes, or name another column with --column label=NAME."
        )
