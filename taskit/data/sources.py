"""From what the user names (a file, a folder, a zip, a Hub dataset) to tables, one per split."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

import datasets
from datasets.table import embed_table_storage
from pandas import DataFrame

from taskit.data.archives import MAX_MEMBER_BYTES, read_zip
from taskit.data.images import arrange, is_image, split_name
from taskit.data.info import Dropped, drop
from taskit.data.pictures import with_images
from taskit.data.tables import READERS, Table, frame_of, is_table, parse_table, read_table
from taskit.errors import DataError, first_line

PREFIX = "hub:"
_HUB_NAME = re.compile(r"hub:(?P<name>\w[\w.-]*/\w[\w.-]*)(?::(?P<config>[\w.-]+))?")


@dataclass(frozen=True, slots=True)
class Source:
    """Tables as they were read, by split: "train" always, "validation" and "test" where the source has them."""

    splits: Mapping[str, DataFrame]
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[str, ...] = ()


def read(source: str | Path) -> Source:
    """Read a dataset; raises DataError with one sentence where that is impossible."""
    if str(source).startswith(PREFIX):
        return _require_train(Source(_read_hub(str(source))), str(source))
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"{source} does not exist: check the path, or write hub:OWNER/NAME for a Hub dataset.")
    if path.is_dir():
        return _read_folder(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty: choose a file that holds rows or images.")
    if path.suffix.lower() == ".zip":
        return _from_members(read_zip(path), path.name)
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


def _read_hub(source: str) -> dict[str, DataFrame]:
    """`hub:OWNER/NAME[:config]` as one table per split, under the names train, validation and test.

    It is read through `datasets` only, which runs none of its code.
    """
    match = _HUB_NAME.fullmatch(source)
    if match is None:
        raise DataError(f"'{source}' is no Hub dataset: write hub:OWNER/NAME or hub:OWNER/NAME:CONFIG.")
    try:
        loaded = datasets.load_dataset(match["name"], match["config"])
    except Exception as error:  # of the network, of the Hub, or of any reader of files
        raise DataError(
            f"{source} could not be loaded ({first_line(error)}): check the name, the configuration and the "
            "connection."
        ) from error
    splits: dict[str, DataFrame] = {}
    for name, data in loaded.items():
        split = split_name(str(name))
        if split and split not in splits:
            splits[split] = frame_of(_with_bytes(data), str(name))
    return splits


def _with_bytes(data: datasets.Dataset) -> datasets.Dataset:
    """The dataset with the bytes of images that are separate files in its table."""
    if not any(isinstance(feature, datasets.Image) for feature in data.features.values()):
        return data
    return data.with_format("arrow").map(embed_table_storage, batched=True, keep_in_memory=True).with_format(None)


def _read_folder(folder: Path) -> Source:
    files = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    inside = sorted(PurePosixPath(file.relative_to(folder)) for file in files)
    if any(map(is_image, inside)):
        wanted = (path for path in inside if is_image(path) or is_table(path))
        return _from_members([(path, _content(folder / path)) for path in wanted], folder.name)
    tables = _split_files([file for file in folder.iterdir() if file.suffix.lower() in READERS], folder.name)
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


File = TypeVar("File", bound=PurePath)


def _split_files(files: Iterable[File], name: str) -> dict[str, File]:
    """The file of each split: train.csv, or PREFIX_train.csv as long as there is only one of them."""
    found: dict[str, File] = {}
    for file in sorted(files):
        split = split_name(re.split(r"[-_. ]", file.stem)[-1])
        if split in found:
            raise DataError(f"{name} has two {split} files, {found[split].name} and {file.name}: keep one.")
        if split:
            found[split] = file
    return found


def _from_members(members: Sequence[tuple[PurePosixPath, bytes | None]], name: str) -> Source:
    """Images that a table beside them names, or else those of class folders."""
    images = {path: content for path, content in members if is_image(path)}
    named: dict[PurePosixPath, tuple[Table, DataFrame]] = {}
    broken: list[DataError] = []
    for path, content in members:
        if not is_image(path):
            try:
                table = parse_table(path.name, content or b"")
            except DataError as error:
                broken.append(error)
                continue
            frame = with_images(path, table, images)
            if frame is not None:
                named[path] = table, frame
    if not named:
        classes = {home[1] for home in arrange(list(images)) if home}
        if broken and len(classes) < 2:  # a table that was meant to name the images
            raise broken[0]
        return _from_images(list(images.items()), name)
    only = next(iter(named))
    files = _split_files(named, name) if len(named) > 1 else {split_name(only.stem) or "train": only}
    stray = next((path.name for path in named if path not in files.values()), None)
    if stray:
        raise DataError(
            f"{name} has several tables that name images, {stray} among them: keep one, or call them train.csv and "
            "test.csv."
        )
    warnings = tuple(warning for table, _ in named.values() for warning in table.warnings)
    return _require_train(Source({split: named[path][1] for split, path in files.items()}, warnings=warnings), name)


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
