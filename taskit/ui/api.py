"""The same steps for programs: endpoints of the HTTP API, which are tools for MCP clients too.

Runs started here get names that cannot be guessed; whoever has the name can query the run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api as endpoint
from gradio.utils import get_upload_folder

from taskit.data import load
from taskit.data.sources import PREFIX
from taskit.errors import DataError, RunError, TaskITError, ZooError
from taskit.planning.budget import parse_budget
from taskit.planning.context import prepare
from taskit.planning.plan import Plan
from taskit.planning.planner import decide
from taskit.planning.recipe import Recipe
from taskit.ui.commands import public_source
from taskit.ui.data_step import EXAMPLES, example
from taskit.ui.decorators import error_message, trim_memory
from taskit.ui.run_store import RunStore, Ticket, describe
from taskit.ui.visitors import visitor_of
from taskit.zoo.hub.source import is_hub


class Endpoints:
    """One method for each endpoint; its docstring and types are what a client reads."""

    def __init__(self, run_store: RunStore) -> None:
        self.run_store = run_store

    def check(self, data: str) -> dict[str, Any]:
        """Look at a dataset before training on it: rows, classes, lengths, duplicates and warnings.

        Args:
            data: an uploaded file (zip of image folders, csv, tsv, json, jsonl, parquet), hub:OWNER/NAME, or the name
                of an example, "handwritten digits (images)" or "requests to a shop (text)".
        """
        with _client_errors():
            report = asdict(load(self._source(data)).report)
        report["info"]["source"] = public_source(report["info"]["source"])
        return report

    @trim_memory
    def plan(
        self,
        data: str,
        backbone: str = "vit-mini-tiny32",
        budget: str = "60%",
        epochs: int = 10,
        batch_size: int = 16,
    ) -> dict[str, Any]:
        """Plan where LoRA goes and at which rank, so that the training peak stays inside a memory budget.

        Args:
            data: as for check.
            backbone: a bundled model, or the id of a Hugging Face model with safetensors weights.
            budget: a size such as 6GiB or 800MiB, a percentage between no update and full LoRA, or auto.
            epochs: passes over the training rows.
            batch_size: rows of an optimizer step; how many of them pass at once is planned.
        """
        with _client_errors():
            wanted = parse_budget(budget)
            recipe = Recipe(epochs=epochs, batch_size=batch_size)
            made = decide(prepare(self._source(data), backbone, recipe=recipe), wanted)
            return made.to_dict() | {"data": made.to_dict()["data"] | {"source": public_source(made.data.source)}}

    def train(self, plan: dict[str, Any], data: str, request: gr.Request) -> dict[str, Any]:
        """Start training a plan in the background; answers at once with the run's name, for status and result.

        Args:
            plan: what plan answered, perhaps with other ranks.
            data: the same data again, as for check.
        """
        with _client_errors():
            whole = Plan.from_dict({**plan, "data": {**plan["data"], "source": self._source(data)}}, "the plan")
            _require_public_zoo(whole)
            name = self.run_store.add(visitor_of(request), whole)
            return describe(self.run_store.find(None, name), self.run_store)

    def status(self, run: str) -> dict[str, Any]:
        """Say how far a run is: its state, step, loss, validation metric, time left, and the runs ahead of it.

        Args:
            run: the name that train answered.
        """
        with _client_errors():
            return describe(self.run_store.find(None, run), self.run_store)

    def result(self, run: str) -> dict[str, Any]:
        """What a finished run gave: the metric before and after, predicted and measured peak in bytes, and time.

        Args:
            run: the name that train answered.
        """
        with _client_errors():
            found = self.run_store.find(None, run)
            given = None if isinstance(found, Ticket) else found.result
            if given is None:
                raise RunError(f"The run {run} has no result yet; ask status until it is done.")
            return asdict(given)

    def _source(self, given: str | dict[str, Any]) -> str:
        """The source of an upload, a Hub dataset or an example; raises DataError for other files of this machine."""
        data: str = given["path"] if isinstance(given, dict) else given  # a dict where gradio_client has uploaded it
        if data in EXAMPLES:
            return str(example(data, self.run_store.root))
        if data.startswith(PREFIX):
            return data
        if Path(get_upload_folder()).resolve() in Path(data).resolve().parents:
            return data
        raise DataError(f"{data} is no upload; upload a file, or give hub:OWNER/NAME or the name of an example.")


def _require_public_zoo(plan: Plan) -> None:
    """Raises ZooError for adapters in a folder of this machine, which may be another visitor's."""
    zoo = plan.method_options.get("zoo")
    if zoo is not None and not is_hub(zoo):
        raise ZooError("The plan mixes adapters of a folder; put them on the Hub and plan with --zoo hub:OWNER/NAME.")


@contextmanager
def _client_errors() -> Iterator[None]:
    """Raise what the client's input caused as a ``gr.Error`` of one sentence."""
    try:
        yield
    except (TaskITError, KeyError, TypeError) as error:
        raise gr.Error(error_message(error), print_exception=False) from error


def api(run_store: RunStore) -> None:
    """Register the endpoints."""
    one = Endpoints(run_store)
    heavy: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "planning"}
    endpoint(one.check, api_name="check", concurrency_limit=2, concurrency_id="reading")
    endpoint(one.plan, api_name="plan", **heavy)
    endpoint(one.train, api_name="train")
    endpoint(one.status, api_name="status")
    endpoint(one.result, api_name="result")
