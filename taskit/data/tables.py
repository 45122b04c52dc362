"""Tables from files: CSV, TSV, JSON, JSON Lines and Parquet. The index of each table says where a row stands."""

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
from datasets.table import InMemoryTable
from pandas import DataFrame

from taskit.data.images import is_leftover
from taskit.errors import DataError


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as they were read: `frame` has one object column per field and the origin of each row as its index."""

    frame: DataFrame
    warnings: tuple[str, ...] = ()


def is_table(path: PurePosixPath) -> bool:
    """Whether a path ends like a table and is no leftover of an operating system."""
    return path.suffix.lower() in READERS and not is_leftover(path)


def read_table(path: Path) -> Table:
    """Read one file as `parse_table` does."""
    return parse_table(path.name, path.read_bytes())


def parse_table(name: str, content: bytes) -> Table:
    """The table in the ``content`` of a file, by the suffix of its ``name``; header names lose stray spaces, with a
    warning.

    Raises DataError when the file is empty, broken or ragged, naming the line.
    """
    if not content:
        raise DataError(f"{name} is empty: choose a file that holds rows.")
    table = READERS[PurePosixPath(name).suffix.lower()](content, name)
    if table.frame.empty:
        raise DataError(f"{name} holds no rows: add at least two examples of each class.")
    return _strip_header(table, name)


def frame_of(data: datasets.Dataset, name: str) -> DataFrame:
    """A table from a `datasets.Dataset`: class indices become their names, hidden labels (-1) become None."""
    table: Any = data.with_format("arrow")[:]
    columns = {column: table[column].to_pylist() for column in table.column_names}
    for column, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):
            columns[column] = [None if v is None or v < 0 else feature.int2str(v) for v in columns[column]]
    origins = [f"{name} row {number}" for number in range(1, len(table) + 1)]
    return DataFrame(columns, index=origins, dtype=object)


def _strip_header(table: Table, name: str) -> Table:
    found = [str(column) for column in table.frame.columns]
    stripped = [column.strip() for column in found]
    _refuse_twins(stripped, name)
    spaced = [column for column in found if column != column.strip()]
    if not spaced:
        return table
    shown = ", ".join(f"'{column}'" for column in spaced)
    warning = f"{name}: stray spaces were removed from the column names {shown}."
    return Table(table.frame.set_axis(stripped, axis=1), (*table.warnings, warning))


def _refuse_twins(columns: Sequence[str], name: str) -> None:
    twins = [column for column, count in Counter(columns).items() if count > 1]
    if twins:
        raise DataError(f"{name} has more than one column called '{twins[0]}': rename all but one of them.")


def _decode(content: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ("utf-16",)
    elif b"\0" in content:
        raise DataError(f"{name} is not a text file: save it as UTF-8 text and try again.")
    else:
        encodings = ("utf-8-sig", "cp1252", "latin-1")  # utf-8-sig also reads UTF-8 without its mark
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        known = encoding.startswith("utf")
        return text, () if known else (f"{name} is not UTF-8: it was read as {encoding}.",)
    raise DataError(f"{name} is not readable text: save it as UTF-8 and try again.")


def _read_csv(content: bytes, name: str) -> Table:
    text, warnings = _decode(content, name)
    header = text.lstrip().partition("\n")[0]
    delimiter = ";" if ";" in header and "," not in header else ","
    return Table(_parse(text, name, delimiter, csv.QUOTE_MINIMAL), warnings)


def _read_tsv(content: bytes, name: str) -> Table:
    text, warnings = _decode(content, name)
    try:
        return Table(_parse(text, name, "\t", csv.QUOTE_MINIMAL), warnings)
    except DataError:
        # Many TSV files use no quoting at all, so that a lone quote mark is text.
        return Table(_parse(text, name, "\t", csv.QUOTE_NONE), warnings)


def _parse(text: str, name: str, delimiter: str, quoting: Any) -> DataFrame:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    header, rows, origins = None, [], []
    try:
        for row in reader:
            if not row:
                continue
            if header is None:
                header = [cell if cell.strip() else f"column {n}" for n, cell in enumerate(row, start=1)]
                _refuse_twins(header, name)
            elif len(row) != len(header):
                raise DataError(
                    f"{name}, line {reader.line_num}: {len(row)} fields where the header has {len(header)}; "
                    f"quote the fields that hold a separator, or mend the line."
                )
            else:
                rows.append(row)
                origins.append(f"{name} line {reader.line_num}")
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}: {error}; mend the quotes of that row.") from error
    return DataFrame(rows, columns=header or [], index=origins, dtype=object)


def _read_json(content: bytes, name: str) -> Table:
    text, warnings = _decode(content, name)
    found = _loads(text, name, hint="mend it there, or call the file .jsonl if each line is one object")
    rows = found.get("data") if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise DataError(f"{name} must be a list of objects, or an object with a list called 'data'.")
    return Table(_from_objects((f"{name} row {n}", row) for n, row in enumerate(rows, start=1)), warnings)


def _read_jsonl(content: bytes, name: str) -> Table:
    text, warnings = _decode(content, name)
    # Only \n ends a line of JSON Lines: str.splitlines would also cut at U+2028 inside a string.
    lines = [(f"{name} line {n}", line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    objects = (
        (origin, _loads(line, origin, hint="mend or remove that line", numbered=False)) for origin, line in lines
    )
    return Table(_from_objects(objects), warnings)


def _loads(text: str, origin: str, hint: str, numbered: bool = True) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{origin} line {error.lineno}" if numbered else origin
        raise DataError(f"{where} is not valid JSON ({error.msg}): {hint}.") from error
    except RecursionError as error:
        raise DataError(f"{origin} is nested too deeply: {hint}.") from error


def _from_objects(objects: Iterable[tuple[str, object]]) -> DataFrame:
    origins, rows = [], []
    for origin, row in objects:
        if not isinstance(row, dict):
            raise DataError(f'{origin} is not a JSON object: write each row as {{"text": ..., "label": ...}}.')
        origins.append(origin)
        rows.append(row)
    return DataFrame(rows, index=origins, dtype=object)


def _read_parquet(content: bytes, name: str) -> Table:
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a readable Parquet file: write it again and retry.") from error
    _refuse_twins(table.column_names, name)
    return Table(frame_of(datasets.Dataset(InMemoryTable(table)), name))


READERS = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
