"""The plan: everything decided before a weight is touched, as a file that a person can read and edit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from taskit.backbone.sources import Backbone
from taskit.data.info import DataInfo
from taskit.errors import PlanError
from taskit.planning.recipe import Recipe
from taskit.scheduler import ANY, Constraints, Explanation
from taskit.transfer.importance import Sources
from taskit.transfer.similarity import TaskSimilarity

SCHEMA = 2
EARLIER = 1  # whose plans are still read


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The predicted peak of training, in bytes; the four parts add up to it exactly."""

    constant_bytes: int  # frozen weights, buffers, the batch, the heads with gradient and optimizer state
    module_bytes: int  # LoRA weights, gradients, optimizer state and rank-sized activations
    activation_bytes: int  # activations kept for the backward pass
    transient_bytes: int  # what lives only for a moment when the peak is reached
    peak_bytes: int
    no_update_bytes: int  # the peak with no location inserted
    full_lora_bytes: int  # the peak with rank 8 at every location
    block_bytes: tuple[int, ...] = ()  # activation_bytes by block, the one nearest the input first


@dataclass(frozen=True, slots=True)
class PlannedLocation:
    """One candidate.  ``bytes`` is what its insertion adds to the plan, 0 without one.

    ``sources`` are the addends of its importance by the adapter that they come from, see `transfer.importance`.
    """

    name: str
    block: int
    role: str
    importance: float
    rank: int
    bytes: int
    sources: Sources


@dataclass(frozen=True, slots=True)
class SkippedAdapter:
    """A learned task that could not be used, and why."""

    adapter: str
    reason: str


@dataclass(frozen=True, slots=True)
class Saving:
    """One thing that was done to fit: a sentence, and by how many bytes it lowers the peak."""

    sentence: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A complete decision; ``locations`` holds every candidate, rank 0 included.

    ``shortfall_bytes`` is what the budget lacks for the cheapest insertion where nothing is inserted, else 0.
    The explanation is missing where a person or a baseline chose the ranks.  ``method_options`` are JSON, and the
    method's own.  ``training_rows`` are those that are left when validation rows are set aside; ``longest`` says what
    the longest batch holds, and ``savings`` what was done to fit, cheapest first.
    """

    method: str
    seed: int
    backbone: Backbone
    data: DataInfo
    budget_bytes: int
    memory: MemoryEstimate
    similarity_measure: str
    similarity: tuple[TaskSimilarity, ...]
    skipped: tuple[SkippedAdapter, ...]
    locations: tuple[PlannedLocation, ...]
    objective: float
    trainable_parameters: int
    training: Recipe
    gain: str = "sqrt_ln1p"
    constraints: Constraints = ANY
    shortfall_bytes: int = 0
    explanation: Explanation | None = None
    importance_measure: str = "ratio"
    method_options: Mapping[str, Any] = field(default_factory=dict)
    training_rows: int | None = None
    longest: str = ""
    savings: tuple[Saving, ...] = ()

    @property
    def ranks(self) -> dict[str, int]:
        return {location.name: location.rank for location in self.locations}

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run in one process."""
        rows = self.data.train_rows if self.training_rows is None else self.training_rows
        return -(-rows // self.training.batch_size) * self.training.epochs

    def to_dict(self) -> dict:
        values = asdict(self)
        values["data"]["columns"] = dict(self.data.columns)
        return {"schema": SCHEMA, **values}

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON; equal plans give equal bytes.

        Raises:
            PlanError: the file cannot be written.
        """
        from taskit.files import write_json

        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_json(Path(path), self.to_dict())
        except OSError as error:
            raise PlanError(f"{path} cannot be written ({error.strerror}); choose another --out.") from error

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """Read a plan file, edited by hand or not.

        Raises:
            PlanError: not a plan, a missing or misplaced value, a rank that is no whole number >= 0.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"{path} cannot be read ({error.strerror}); give a plan made by taskit plan.") from error
        except ValueError as error:
            raise PlanError(f"{path} is no valid JSON ({error}); mend it or run taskit plan again.") from error
        return cls.from_dict(values, str(path))

    @classmethod
    def from_dict(cls, values: Mapping, source: str = "The plan") -> "Plan":
        if not isinstance(values, Mapping) or values.get("schema") not in (EARLIER, SCHEMA):
            raise PlanError(f"{source} is no plan of schema {EARLIER} or {SCHEMA}; run taskit plan again.")
        try:
            plan = cls(
                method=values["method"],
                seed=values["seed"],
                backbone=Backbone(**values["backbone"]),
                data=DataInfo.from_dict({**values["data"], "columns": values["data"]["columns"].items()}),
                budget_bytes=values["budget_bytes"],
                memory=MemoryEstimate(
                    **{**values["memory"], "block_bytes": tuple(values["memory"].get("block_bytes", ()))}
                ),
                similarity_measure=values["similarity_measure"],
                similarity=tuple(TaskSimilarity(**item) for item in values["similarity"]),
                skipped=tuple(SkippedAdapter(**item) for item in values["skipped"]),
                locations=tuple(PlannedLocation(**item) for item in values["locations"]),
                objective=values["objective"],
                trainable_parameters=values["trainable_parameters"],
                training=_recipe(values),
                gain=values.get("gain", "sqrt_ln1p"),
                constraints=Constraints.from_json(values.get("constraints", {})),
                shortfall_bytes=values.get("shortfall_bytes", 0),
                explanation=Explanation.from_json(values["explanation"]) if values.get("explanation") else None,
                importance_measure=values.get("importance_measure", "ratio"),
                method_options=dict(values.get("method_options", {})),
                training_rows=values.get("training_rows"),
                longest=values.get("longest", ""),
                savings=tuple(Saving(**item) for item in values.get("savings", ())),
            )
        except PlanError as error:
            raise PlanError(f"{source} cannot be trained: {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise PlanError(f"{source} misses or misnames a field ({error}); run taskit plan again.") from error
        _check_ranks(plan.locations, source)
        return plan


def _recipe(values: Mapping) -> Recipe:
    """How a plan trains; one of the earlier schema gave its rows by micro-batch."""
    training = values["training"]
    if values["schema"] == EARLIER:
        rows, count = training["batch_size"], training.get("gradient_accumulation", 1)
        if values["method"] == "tglora":
            count = 1  # it stood for the number of tasks
        training = {**training, "batch_size": rows * count, "micro_batch": rows, "gradient_accumulation": count}
    return Recipe(**training)


def _check_ranks(locations: Sequence[PlannedLocation], source: str) -> None:
    for location in locations:
        if type(location.rank) is not int or location.rank < 0:
            raise PlanError(
                f"{source} gives {location.name} the rank {location.rank!r}; ranks are whole numbers, 0 for none."
            )
    names = [location.name for location in locations]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise PlanError(f"{source} names the location {twice} twice; keep one of the entries.")
