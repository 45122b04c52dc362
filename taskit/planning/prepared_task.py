"""A new task, whatever the method to come: read and priced without weights, then seen with them beside the zoo."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from taskit.backbone.heads import final_linear
from taskit.backbone.loading import load_model, require_task
from taskit.backbone.processors import make_collator
from taskit.backbone.sources import Backbone, find_backbone
from taskit.data import Collator, Dataset, load
from taskit.data.dataset import NOTHING_LEARNED
from taskit.planning.pricing import Pricing, price
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import StepSpec, build_step_spec
from taskit.transfer.measure import Measurement, measure_forward_only, measure_with_trial
from taskit.transfer.probe_context import ProbeContext, open_probe
from taskit.zoo.zoo import Zoo, find_zoo

if TYPE_CHECKING:
    from datasets import Dataset as Rows
    from torch import nn
    from transformers import PreTrainedModel

# Twice as many rows, in every step of the trial too, separate learned tasks better, but planning would then take
# more than a fiftieth of the training: benchmarks/planning.py.
PROBE_ROWS = 64  # on which every learned task is tried
ROWS = 512  # on which the head that stands for the one to come is fitted, and from which the trial takes its steps
EACH = 8  # rows of every class, at least, for that head


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task read and priced; no weight is loaded."""

    backbone: Backbone
    data: Dataset
    collator: Collator
    recipe: Recipe
    step_spec: StepSpec
    pricing: Pricing
    seed: int


@dataclass(frozen=True)
class ComparedTask:
    """A task seen beside the learned ones, by the measures named; what a method does not ask for is not computed."""

    prepared: PreparedTask
    probe_context: ProbeContext
    zoo: Zoo
    zoo_source: str | None
    similarity: str
    importance: str

    @cached_property
    def with_trial(self) -> Measurement:
        """With a trial of the new task, which takes the memory of training a few rows."""
        return measure_with_trial(self.probe_context, self.zoo.tasks, self.similarity, self.importance)

    @cached_property
    def forward_only(self) -> Measurement:
        """By ``delta``, with forward passes alone."""
        return measure_forward_only(self.probe_context, self.zoo.tasks)


def prepare_task(
    source: str | Path,
    backbone_id: str,
    recipe: Recipe,
    *,
    columns: Mapping[str, str] | None = None,
    dtype: str = "float32",
    quantization: str | None = None,
    attention: str | None = None,
    vision_tower: bool = False,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> PreparedTask:
    """Read the data and price every location; arguments and errors are those of `planning.context.prepare`."""
    backbone = find_backbone(backbone_id, dtype=dtype, quantization=quantization, attention=attention)
    on_progress("reading the data")
    data = load(source, columns=columns, seed=seed)
    require_task(backbone, data.info.task)
    on_progress("tracing a training step without weights")
    collator = make_collator(backbone, data.info.task, recipe.max_length)
    data = data.learnable(collator)
    for one in (one for one in data.report.dropped if one.reason == NOTHING_LEARNED):
        on_progress(f"{one.count} rows are left out, which have {one.reason}")
    step_spec = build_step_spec(backbone, data, recipe, collator, on_progress, vision_tower, seed=seed)
    return PreparedTask(backbone, data, collator, recipe, step_spec, price(step_spec), seed)


@contextmanager
def compare_with_zoo(
    prepared: PreparedTask,
    *,
    zoo: str | Path | None = None,
    token: str | None = None,
    similarity: str = "trial",
    importance: str = "blend",
    on_progress: Callable[[str], None] = lambda _: None,
) -> Iterator[ComparedTask]:
    """The task seen with the backbone's weights, which are held until the end of the block."""
    on_progress("loading the backbone")
    learned = find_zoo(zoo, prepared.backbone, token)
    if learned.note:
        on_progress(learned.note)
    info = prepared.data.info
    model = load_model(prepared.backbone, task=info.task, labels=info.labels)
    on_progress(f"comparing the task with {len(learned.tasks)} learned ones")
    with open_probe(model, *_draw(model, prepared)) as probe_context:
        yield ComparedTask(
            prepared, probe_context, learned, None if zoo is None else str(zoo), similarity, importance
        )


def _draw(
    model: "PreTrainedModel", prepared: PreparedTask
) -> "tuple[list[dict], list[str], nn.Linear | None, list[dict]]":
    """A probe of the training rows, the locations, the last linear of the head, and further rows for `open_probe`."""
    data, info = prepared.data, prepared.data.info
    probed = max(PROBE_ROWS, EACH // 2 * len(info.labels))
    # images with text are large, and no head is fitted for them: the trial makes do with the probe
    wanted = PROBE_ROWS if info.modality == "image-text" else max(ROWS, EACH * len(info.labels))
    count = min(len(data.train), wanted)
    rows = data.train.shuffle(seed=prepared.seed).select(range(count))
    probe, more = (_batches(prepared, rows, some) for some in (range(count)[:probed], range(count)[probed:]))
    names = [place.name for place in prepared.step_spec.locations]
    return probe, names, final_linear(model) if info.labels else None, more


def _batches(prepared: PreparedTask, rows: "Rows", some: Sequence[int]) -> list[dict]:
    """Some of ``rows`` in batches: texts of like length together, which pad little, and the batches in any order."""
    modality = prepared.data.info.modality
    if modality == "text":
        some = sorted(some, key=lambda position: len(str(rows[position])))
    # images may take a batch by tiles or patches, so that only a batch of one row can be cut by rows
    step = 1 if modality == "image-text" else prepared.recipe.batch_size
    cuts = [some[start : start + step] for start in range(0, len(some), step)]
    random.Random(prepared.seed).shuffle(cuts)
    return [prepared.collator([rows[position] for position in cut]) for cut in cuts]
