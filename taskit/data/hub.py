"""Datasets from the Hugging Face Hub, through `datasets` alone: no code of theirs is run."""

import re

import datasets
from datasets.table import embed_table_storage
from pandas import DataFrame

from taskit.data.images import split_name
from taskit.data.tables import frame_of
from taskit.errors import DataError

PREFIX = "hub:"
_NAME = re.compile(r"hub:(?P<name>\w[\w.-]*/\w[\w.-]*)(?::(?P<config>[\w.-]+))?")


def read_hub(source: str) -> dict[str, DataFrame]:
    """Load `hub:OWNER/NAME[:config]` as one table per split, under the names train, validation and test."""
    match = _NAME.fullmatch(source)
    if match is None:
        raise DataError(f"'{source}' is no Hub dataset: write hub:OWNER/NAME or hub:OWNER/NAME:CONFIG.")
    try:
        loaded = datasets.load_dataset(match["name"], match["config"])
    except Exception as error:  # the network, the Hub and every dataset's own files can fail in their own ways
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise DataError(
            f"{source} could not be loaded ({reason}): check the name, the configuration and the connection."
        ) from error
    splits: dict[str, DataFrame] = {}
    for name, data in loaded.items():
        split = split_name(str(name))
        if split and split not in splits:
            splits[split] = frame_of(_with_bytes(data), str(name))
    return splits


def _with_bytes(data: datasets.Dataset) -> datasets.Dataset:
    """Images that stand in files of their own come into the table."""
    if not any(isinstance(feature, datasets.Image) for feature in data.features.values()):
        return data
    return data.with_format("arrow").map(embed_table_storage, batched=True, keep_in_memory=True).with_format(None)
