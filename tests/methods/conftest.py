"""A tiny world with two learned tasks, and whole roads through it."""

import pytest

from taskit.cli.main import main
from tests.conftest import save_adapter
from tests.world import write_bert, write_topics

PLACES = [
    f"bert.encoder.layer.{block}.{leaf}"
    for block in range(3)
    for leaf in ("attention.self.query", "attention.self.value", "output.dense")
]


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A backbone, a dataset and a zoo: one learned task everywhere, one of another rank in the last block."""
    from transformers import BertForSequenceClassification

    folder = tmp_path_factory.mktemp("methods")
    write_bert(folder / "bert")
    write_topics(folder / "topics.csv", rows=60)
    model = BertForSequenceClassification.from_pretrained(folder / "bert")
    for name, ranks in {"wide": dict.fromkeys(PLACES, 3), "last": dict.fromkeys(PLACES[-3:], 2)}.items():
        peft = save_adapter(model, folder / "zoo" / name, ranks, seed=len(name))
        peft.peft_config["default"].base_model_name_or_path = str(folder / "bert")
        peft.save_pretrained(folder / "zoo" / name, save_embedding_layers=False)
    return folder


@pytest.fixture
def plan_with(world, tmp_path):
    """Plan by the CLI; returns the file."""

    def plan(method, *more, budget="100%", zoo=True):
        words = ["plan", str(world / "topics.csv"), "--backbone", str(world / "bert"), "--budget", budget]
        words += ["--epochs", "2", "--batch-size", "8", "--learning-rate", "0.01", "--method", method]
        words += ["--zoo", str(world / "zoo")] if zoo else []
        path = tmp_path / "plan.json"
        assert main([*words, *more, "--out", str(path)]) == 0
        return path

    return plan
