"""Which column plays which role: recognised by name and by content, or named by the user."""

from collections.abc import Mapping
from dataclasses import dataclass

from pandas import DataFrame

from taskit.data import cells, naming
from taskit.data.images import SUFFIXES
from taskit.data.naming import listed
from taskit.errors import DataError

ROLES = ("image", "text", "text_pair", "label", "prompt", "completion", "messages")
GENERATION = ("prompt", "completion", "messages")
CLASSIFICATION = ("image", "text_pair", "label")


@dataclass(frozen=True, slots=True)
class Columns:
    """The task, and (role, column) for each role in the order of `ROLES`."""

    task: str
    roles: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()


def recognise(frame: DataFrame, chosen: Mapping[str, str] | None = None) -> Columns:
    """Find the roles of a table's columns; `chosen` ({role: column}) overrides what would be found.

    Raises DataError, naming columns and the next step, where a role is missing or could be played by several.
    """
    kinds = {column: cells.kind(frame[column].tolist()) for column in frame.columns}
    chosen = _check_chosen(kinds, {role: column.strip() for role, column in (chosen or {}).items()})
    generation = _generation(kinds, chosen)
    found, notes = (generation, ()) if generation else _classification(frame, kinds, chosen)
    roles = tuple((role, found[role]) for role in ROLES if role in found)
    spare = [column for column in frame.columns if column not in found.values()]
    if spare:
        notes = (*notes, f"Columns left unused: {listed(spare)}.")
    if "label" not in found:
        return Columns("image-text-to-text" if "image" in found else "text-generation", roles, notes)
    cells.check_labels(frame[found["label"]].tolist(), found["label"])
    return Columns("image-classification" if "image" in found else "text-classification", roles, notes)


def has_label(frame: DataFrame) -> bool:
    """Whether a column that holds values is called like a label."""
    return any(naming.is_label(column) and cells.kind(frame[column].tolist()) != "empty" for column in frame.columns)


def _check_chosen(kinds: Mapping[str, str], chosen: dict[str, str]) -> dict[str, str]:
    for role, column in chosen.items():
        if role not in ROLES:
            raise DataError(f"'{role}' is not a role of a column: use one of {', '.join(ROLES)}.")
        if column not in kinds:
            raise DataError(f"There is no column '{column}': choose {role} among {listed(kinds)}.")
        if kinds[column] == "empty":
            raise DataError(f"The column '{column}' is empty in every row: fill it, or name another for {role}.")
        if role in ("image", "messages") and kinds[column] != role:
            raise DataError(f"The column '{column}' does not hold {role}: name another, or leave {role} to TaskIT.")
    if len(set(chosen.values())) < len(chosen):
        raise DataError("One column was named for two roles: name a column of its own for each.")
    about_image = set(chosen) <= {"image", "prompt", "completion"}
    if set(chosen) & set(GENERATION) and set(chosen) & {*CLASSIFICATION, "text"} and not about_image:
        raise DataError(
            f"The roles {', '.join(chosen)} do not belong to one task: name prompt and completion, or messages, "
            f"or an image with what is to be written about it, or an input and its label."
        )
    return chosen


def _generation(kinds: Mapping[str, str], chosen: Mapping[str, str]) -> dict[str, str] | None:
    """Roles of a generation task, where names or contents leave no doubt."""
    if "messages" in chosen:
        return {"messages": chosen["messages"]}
    if set(chosen) & {"text_pair", "label", "text"}:
        return None
    image = _image(kinds, chosen)
    if image:
        return _about_image(image, kinds, chosen)
    pairs = naming.INSTRUCTIONS
    if chosen or not any(naming.is_label(column) for column in kinds):
        pairs = (*naming.INSTRUCTIONS, *naming.QUESTIONS)
    pair = naming.find_pair([column for column, kind in kinds.items() if kind in ("text", "number")], pairs)
    if pair or chosen:
        found = {**dict(zip(("prompt", "completion"), pair or (), strict=False)), **chosen}
        if len(set(found.values())) < 2:
            raise DataError(f"Prompt and completion need a column each: name both among {listed(kinds)}.")
        return found
    talks = [column for column, kind in kinds.items() if kind == "messages"]
    if len(talks) > 1:
        raise DataError(f"The columns {listed(talks)} all hold messages: pick one with --column messages=NAME.")
    return {"messages": talks[0]} if talks else None


def _about_image(image: str, kinds: Mapping[str, str], chosen: Mapping[str, str]) -> dict[str, str] | None:
    """An image with what is to be written about it, and the prompt where there is one; None for a class of images."""
    texts = [column for column, kind in kinds.items() if kind in ("text", "number") and column not in chosen.values()]
    if "completion" in chosen:
        return {"image": image, **chosen}
    labelled = any(naming.is_label(column) for column in texts)
    pairs = naming.INSTRUCTIONS if labelled else (*naming.INSTRUCTIONS, *naming.QUESTIONS)
    pair = None if "prompt" in chosen else naming.find_pair(texts, pairs)
    if pair:
        return {"image": image, "prompt": pair[0], "completion": pair[1]}
    caption = naming.find_caption(texts)
    if caption and ("prompt" in chosen or not labelled):
        return {"image": image, **chosen, "completion": caption}
    if "prompt" in chosen:
        raise DataError(
            f"No answer to the prompt was found: name it with --column completion=NAME among {listed(kinds)}."
        )
    return None


def _classification(
    frame: DataFrame, kinds: Mapping[str, str], chosen: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Roles of a classification task, or of plain text where nothing can be a label."""
    label, notes = _label(frame, kinds, chosen)
    if label is None:
        return _plain_text(kinds, chosen)
    rest = {column: kind for column, kind in kinds.items() if column != label}
    image = _image(rest, chosen)
    if image:
        return {"image": image, "label": label}, notes
    texts, more = _texts(frame, rest, chosen)
    return {**texts, "label": label}, (*notes, *more)


def _label(
    frame: DataFrame, kinds: Mapping[str, str], chosen: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...]]:
    if "label" in chosen:
        return chosen["label"], ()
    free = [column for column in kinds if column not in chosen.values()]
    named = naming.find_labels(free)
    if named and all(kinds[column] == "empty" for column in named):
        raise DataError(f"The label column '{named[0]}' is empty in every row: fill it, or use --column label=NAME.")
    named = [column for column in named if kinds[column] != "empty"]
    if named:
        return _only(named), ()
    guesses = [column for column in free if kinds[column] in ("text", "number") and _repeats(frame, column)]
    if not guesses:
        return None, ()
    guess = _only(guesses)
    if guess in {str(cell) for cell in frame[guess]}:
        raise DataError(f"The first line looks like data ('{guess}' is also a value): add a line of column names.")
    return guess, (f"No column is called like a label: '{guess}' was taken for its few repeated values.",)


def _only(candidates: list[str]) -> str:
    if len(candidates) > 1:
        raise DataError(
            f"The columns {listed(candidates)} could each be the label: pick one with --column label=NAME."
        )
    return candidates[0]


def _repeats(frame: DataFrame, column: str) -> bool:
    """Whether the values look like class names: short, between 2 and 100 of them, each thrice on average."""
    values = [str(cell) for cell in frame[column] if not cells.is_missing(cell)]
    distinct = len(set(values))
    return not naming.is_text(column) and 2 <= distinct <= min(100, len(values) // 3) and max(map(len, values)) <= 64


def _plain_text(kinds: Mapping[str, str], chosen: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    text = chosen.get("text") or next((column for column in kinds if column.lower() == "text"), None)
    if text and kinds[text] == "text" and (len(kinds) == 1 or set(chosen) == {"text"}):
        return {"text": text}, ("No column holds labels: the data is read as plain text to generate.",)
    raise DataError(
        f"No label column was found among {listed(kinds)}: name it with --column label=NAME, or name only "
        f"--column {_written(kinds)}=NAME to learn to write such text."
    )


def _written(kinds: Mapping[str, str]) -> str:
    return "completion" if "image" in kinds.values() else "text"


def _image(kinds: Mapping[str, str], chosen: Mapping[str, str]) -> str | None:
    images = [column for column, kind in kinds.items() if kind == "image"]
    if "image" in chosen or "text" in chosen or not images:
        return chosen.get("image")
    if len(images) > 1:
        raise DataError(f"The columns {listed(images)} all hold images: pick one with --column image=NAME.")
    return images[0]


def _texts(
    frame: DataFrame, kinds: Mapping[str, str], chosen: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """One text column, or a pair of them."""
    if "text" in chosen:
        return {role: chosen[role] for role in ("text", "text_pair") if role in chosen}, ()
    columns = [column for column, kind in kinds.items() if kind == "text" and column not in chosen.values()]
    pair = None if "text_pair" in chosen else naming.find_pair(columns, naming.PAIRS)
    if pair:
        return {"text": pair[0], "text_pair": pair[1]}, ()
    text = naming.find_text(columns)
    texts = [text] if text else _prose(frame, columns)
    if not texts:
        empty = [column for column, kind in kinds.items() if kind == "empty"]
        why = f"the columns {listed(empty)} are empty in every row" if empty else "no other column holds text"
        raise DataError(f"Nothing to learn from was found, {why}: fill one, or name it with --column text=NAME.")
    if len(texts) > 2 or (len(texts) == 2 and "text_pair" in chosen):
        raise DataError(f"The columns {listed(texts)} could each be the text: pick one with --column text=NAME.")
    if len(texts) == 2:
        note = f"The columns {listed(texts)} are read as a pair; name one with --column text=NAME to use it alone."
        return {"text": texts[0], "text_pair": texts[1]}, (note,)
    _refuse_paths(frame, texts[0])
    return {"text": texts[0], **({"text_pair": chosen["text_pair"]} if "text_pair" in chosen else {})}, ()


def _prose(frame: DataFrame, columns: list[str]) -> list[str]:
    """The columns of several words in most rows; all columns where none is so."""

    def is_prose(column: str) -> bool:
        spaced = [" " in cell.strip() for cell in frame[column] if not cells.is_missing(cell)]
        return 2 * sum(spaced) > len(spaced)

    return [column for column in columns if is_prose(column)] or columns


def _refuse_paths(frame: DataFrame, column: str) -> None:
    values = [cell for cell in frame[column] if not cells.is_missing(cell)]
    if all("." + cell.strip().rpartition(".")[2].lower() in SUFFIXES for cell in values):
        raise DataError(
            f"The column '{column}' names image files: give a folder or zip with them beside this table, or with one "
            "folder per class."
        )
