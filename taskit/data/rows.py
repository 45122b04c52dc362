"""Normalised rows: the cells of each role, read and checked, what had to be left out, and a held-out split."""

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from pandas import DataFrame

from taskit.data import cells
from taskit.data.columns import Columns
from taskit.data.images import image_size
from taskit.data.info import Dropped, drop

SIZE = "size"  # beside the roles of an image row: (width, height) in pixels

_FEATURES = {
    "image": datasets.Image(),
    "messages": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Usable rows as {role: cell} (labels as text, images as encoded bytes), each with its origin in the source."""

    values: tuple[dict, ...]
    origins: tuple[str, ...]
    dropped: tuple[Dropped, ...] = ()

    def take(self, positions: Sequence[int], dropped: tuple[Dropped, ...] = ()) -> "Rows":
        """The rows at some positions."""
        return Rows(tuple(self.values[p] for p in positions), tuple(self.origins[p] for p in positions), dropped)


def clean(frame: DataFrame, columns: Columns) -> Rows:
    """Read every cell; a row with a missing or unreadable one is dropped with its reason."""
    roles = [role for role, _ in columns.roles]
    table = frame[[column for _, column in columns.roles]]
    values, origins = [], []
    refused: dict[str, list[str]] = {}
    for origin, raw in zip(table.index, table.itertuples(index=False, name=None), strict=True):
        try:
            values.append(_read_row(dict(zip(roles, raw, strict=True))))
            origins.append(str(origin))
        except cells.UnusableError as error:
            refused.setdefault(str(error), []).append(str(origin))
    dropped = tuple(drop(reason, found) for reason, found in refused.items())
    return Rows(tuple(values), tuple(origins), dropped)


def _read_row(raw: dict) -> dict:
    row: dict[str, Any] = {role: cells.read_cell(role, cell) for role, cell in raw.items()}
    if "image" in row:
        try:
            row[SIZE] = image_size(row["image"])
        except ValueError as error:
            raise cells.UnusableError(str(error)) from error
    return row


def inputs(row: dict) -> str:
    """A digest of a row without its label: equal digests, equal inputs."""
    content = {role: cell for role, cell in row.items() if role not in ("label", SIZE)}
    return hashlib.sha256(_canonical(content)).hexdigest()


def fingerprint(train: Rows, evaluation: Rows) -> str:
    """SHA-256 over rows, order, split and labels, as hexadecimal; origins and column names play no part."""
    digest = hashlib.sha256()
    for name, rows in (("train", train), ("evaluation", evaluation)):
        for row in rows.values:
            digest.update(_canonical([name, inputs(row), row.get("label")]) + b"\n")
    return digest.hexdigest()


def _canonical(content: object) -> bytes:
    # Images are bytes, which JSON does not know: their own digest stands for them.
    return json.dumps(content, sort_keys=True, default=lambda data: hashlib.sha256(data).hexdigest()).encode()


def to_dataset(rows: Rows, columns: Columns, labels: Sequence[str]) -> datasets.Dataset:
    """The rows as a `datasets.Dataset` in memory: images decode to PIL, labels are indices into `labels`."""
    features, content = {}, {}
    for role, _ in columns.roles:
        features[role] = _FEATURES.get(role, datasets.Value("string"))
        content[role] = [row[role] for row in rows.values]
    if "label" in content:
        features["label"] = datasets.ClassLabel(names=list(labels))
        index = {label: position for position, label in enumerate(labels)}
        content["label"] = [index[label] for label in content["label"]]
    if "image" in content:
        content["image"] = [{"bytes": image, "path": None} for image in content["image"]]
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def split(strata: Sequence[Hashable], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide the positions 0 … n-1 into (training, evaluation), both in ascending order; stratified and seeded.

    Of each stratum of n ≥ 2 rows, `fraction` · n go to the evaluation, rounded, but at least one and at most n - 1;
    a lone row trains. The same seed gives the same split.
    """
    groups: dict[Hashable, list[int]] = {}
    for position, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(position)
    generator = np.random.default_rng(seed)
    held_out: list[int] = []
    for members in groups.values():
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held_out.extend(generator.permutation(members)[:count].tolist())
    kept = set(range(len(strata))).difference(held_out)
    return sorted(kept), sorted(held_out)
