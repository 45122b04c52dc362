"""Hub datasets, with the loading itself replaced: the network is never touched."""

import datasets
import pytest

from taskit.data import load
from taskit.errors import DataError
from tests.data.conftest import png


@pytest.fixture
def hub(monkeypatch):
    """Put a DatasetDict, or an exception, behind `datasets.load_dataset`; returns the recorded calls."""
    calls = []

    def publish(content):
        def load_dataset(*arguments):
            calls.append(arguments)
            if isinstance(content, Exception):
                raise content
            return content

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return calls

    return publish


def _texts(labels):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = {"text": [f"words {n} of {len(labels)}" for n in range(len(labels))], "label": labels}
    return datasets.Dataset.from_dict(rows, features=features)


def test_text_with_hidden_test_labels(hub):
    splits = {"train": _texts([0, 1] * 5), "validation": _texts([0, 1]), "test": _texts([-1, -1])}
    calls = hub(datasets.DatasetDict(splits))
    data = load("hub:owner/name:config")
    assert calls == [("owner/name", "config")]
    assert (data.info.labels, data.info.train_rows, data.info.eval_rows) == (("no", "yes"), 10, 2)
    hub(datasets.DatasetDict({"train": splits["train"], "test": splits["test"]}))
    assert load("hub:owner/name").info.eval_rows == 2


def test_images_in_files_of_their_own(hub, tmp_path):
    paths = []
    for n in range(6):
        paths.append(str(tmp_path / f"{n}.png"))
        (tmp_path / f"{n}.png").write_bytes(png(n))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"image": paths, "label": [0, 1] * 3}, features=features)
    hub(datasets.DatasetDict({"train": data}))
    loaded = load("hub:owner/name")
    assert loaded.info.task == "image-classification"
    assert loaded.train[0]["image"].size == (8, 8)


def test_unreachable(hub):
    hub(ConnectionError("no route\nmany lines of detail"))
    with pytest.raises(DataError, match=r"hub:owner/name could not be loaded \(no route\): check"):
        load("hub:owner/name")


def test_no_training_split(hub):
    hub(datasets.DatasetDict({"test": _texts([0, 1])}))
    with pytest.raises(DataError, match="no training split"):
        load("hub:owner/name")


@pytest.mark.parametrize("name", ["hub:", "hub:name", "hub:a/b/c", "hub:../etc", "hub:a/b:c:d"])
def test_names_that_are_none(name):
    with pytest.raises(DataError, match="hub:OWNER/NAME"):
        load(name)
