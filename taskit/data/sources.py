"""From what the user names (a file, a folder, a zip, a Hub dataset) to tables, one per split."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pandas import DataFrame

from taskit.data.archives import MAX_MEMBER_BYTES, read_zip
from taskit.data.hub import PREFIX, read_hub
from taskit.data.images import arrange, is_image, split_name
from taskit.data.report import Dropped, drop
from taskit.data.tables import READERS, read_table
from taskit.errors import DataError


@dataclass(frozen=True, slots=True)
class Source:
    """Tables as they were read, by split: "train" always, "validation" and "test" where the source has them."""

    splits: Mapping[str, DataFrame]
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[str, ...] = ()


def read(source: str | Path) -> Source:
    """Read a dataset; raises DataError with one sentence where that is impossible."""
    if str(source).startswith(PREFIX):
        return _require_train(Source(read_hub(str(source))), str(source))
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"{source} does not exist: check the path, or write hub:OWNER/NAME for a Hub dataset.")
    if path.is_dir():
        return _read_folder(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty: choose a file that holds rows or images.")
    if path.suffix.lower() == ".zip":
        return _from_images(read_zip(path), path.name)
    if path.suffix.lower() not in READERS:
        known = ", ".join((*READERS, ".zip"))
        raise DataError(f"{path.name} has a type that TaskIT does not read: use one of {known}, or a folder.")
    table = read_table(path)
    return Source({"train": table.frame}, warnings=table.warnings)


def _require_train(source: Source, name: str) -> Source:
    if "train" not in source.splits:
        found = ", ".join(source.splits) or "none"
        raise DataError(f"{name} has no training split (splits found: {found}): add one called train.")
    return source


def _read_folder(folder: Path) -> Source:
    files = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    images = sorted(inside for file in files if is_image(inside := PurePosixPath(file.relative_to(folder))))
    if images:
        members = [(inside, _content(folder / inside)) for inside in images]
        return _from_images(members, folder.name)
    tables = _split_files(folder)
    if not tables:
        raise DataError(
            f"{folder.name} holds neither images in class folders nor a train.csv (.tsv, .json, .jsonl, .parquet): "
            f"give a folder that does, or name one file."
        )
    read_tables = {split: read_table(file) for split, file in tables.items()}
    splits = {split: table.frame for split, table in read_tables.items()}
    warnings = tuple(warning for table in read_tables.values() for warning in table.warnings)
    return _require_train(Source(splits, warnings=warnings), folder.name)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.stat().st_size <= MAX_MEMBER_BYTES else None


def _split_files(folder: Path) -> dict[str, Path]:
    """The file of each split: train.csv, or PREFIX_train.csv as long as there is only one of them."""
    found: dict[str, Path] = {}
    for file in sorted(file for file in folder.iterdir() if file.suffix.lower() in READERS):
        split = split_name(re.split(r"[-_. ]", file.stem)[-1])
        if split in found:
            raise DataError(f"{folder.name} has two {split} files, {found[split].name} and {file.name}: keep one.")
        if split:
            found[split] = file
    return found


def _from_images(members: Sequence[tuple[PurePosixPath, bytes | None]], name: str) -> Source:
    """Tables with the columns `image` (bytes) and `label` (the folder's name)."""
    arranged = arrange([path for path, _ in members])
    rows: dict[str, list[tuple[str, bytes | None, str]]] = {}
    outside = []
    for (path, content), home in zip(members, arranged, strict=True):
        if home is None:
            outside.append(str(path))
        else:
            rows.setdefault(home[0], []).append((str(path), content, home[1]))
    if not rows:
        raise DataError(
            f"{name} has no image in a class folder: put the images of each class in a folder of its own."
        )
    splits = {
        split: DataFrame(
            {"image": [content for _, content, _ in some], "label": [label for *_, label in some]},
            index=[path for path, *_ in some],
            dtype=object,
        )
        for split, some in rows.items()
    }
    dropped = (drop("outside a class folder", outside),) if outside else ()
    return _require_train(Source(splits, dropped), name)
