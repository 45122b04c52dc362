"""A new task, whatever the method to come: read and priced without weights, then seen with them beside the zoo."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from taskit.backbone.loading import Backbone, final_linear, find_backbone, load_model, require_task
from taskit.backbone.processors import make_collator
from taskit.data import Collator, Dataset, load
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import Pricing, Stage, price, set_stage
from taskit.transfer.measure import Measurement, Sight, glance, sighted, weigh
from taskit.zoo.zoo import Zoo, find_zoo

if TYPE_CHECKING:
    from datasets import Dataset as Rows
    from torch import nn
    from transformers import PreTrainedModel

# Twice as many rows, in every step of the trial too, tell learned tasks apart better, but planning would then take
# more than a fiftieth of the training: benchmarks/planning.py.
PROBE_ROWS = 64  # on which every learned task is tried
ROWS = 512  # on which the head that stands for the one to come is fitted, and from which the trial takes its steps
EACH = 8  # rows of every class, at least, for that head


@dataclass(frozen=True, slots=True)
class Ground:
    """A task read and priced; no weight is loaded."""

    backbone: Backbone
    data: Dataset
    collator: Collator
    recipe: Recipe
    stage: Stage
    pricing: Pricing
    seed: int


@dataclass(frozen=True)
class Survey:
    """A task seen beside the learned ones, by the measures named; what a method does not ask for is not computed."""

    ground: Ground
    sight: Sight
    zoo: Zoo
    zoo_source: str | None
    similarity: str
    importance: str

    @cached_property
    def weighed(self) -> Measurement:
        """With a trial of the new task, which takes the memory of training a few rows."""
        return weigh(self.sight, self.zoo.tasks, self.similarity, self.importance)

    @cached_property
    def glanced(self) -> Measurement:
        """By ``delta``, with forward passes alone."""
        return glance(self.sight, self.zoo.tasks)


def break_ground(
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
    tell: Callable[[str], None] = lambda _: None,
) -> Ground:
    """Read the data and price every location; the arguments and errors are those of `taskit.planning.context.prepare`."""
    backbone = find_backbone(backbone_id, dtype=dtype, quantization=quantization, attention=attention)
    tell("reading the data")
    data = load(source, columns=columns, seed=seed)
    require_task(backbone, data.info.task)
    tell("tracing a training step without weights")
    collator = make_collator(backbone, data.info.task, recipe.max_length)
    stage = set_stage(backbone, data, recipe, collator, tell, vision_tower)
    return Ground(backbone, data, collator, recipe, stage, price(stage), seed)


@contextmanager
def surveyed(
    ground: Ground,
    *,
    zoo: str | Path | None = None,
    token: str | None = None,
    similarity: str = "trial",
    importance: str = "blend",
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Survey]:
    """The task seen with the backbone's weights, which are held until the end of the block."""
    tell("loading the backbone")
    learned = find_zoo(zoo, ground.backbone, token)
    if learned.note:
        tell(learned.note)
    info = ground.data.info
    model = load_model(ground.backbone, task=info.task, labels=info.labels)
    tell(f"comparing the task with {len(learned.tasks)} learned ones")
    with sighted(model, *_draw(model, ground)) as sight:
        yield Survey(ground, sight, learned, None if zoo is None else str(zoo), similarity, importance)


def _draw(model: "PreTrainedModel", ground: Ground) -> "tuple[list[dict], list[str], nn.Linear | None, list[dict]]":
    """A probe of the training rows, the locations, the last linear of the head, and further rows for `sighted`."""
    data, info = ground.data, ground.data.info
    probed = max(PROBE_ROWS, EACH // 2 * len(info.labels))
    # images with text are large, and no head is fitted for them: the trial makes do with the probe
    wanted = PROBE_ROWS if info.modality == "image-text" else max(ROWS, EACH * len(info.labels))
    count = min(len(data.train), wanted)
    rows = data.train.shuffle(seed=ground.seed).select(range(count))
    probe, more = (_batches(ground, rows, some) for some in (range(count)[:probed], range(count)[probed:]))
    names = [place.name for place in ground.stage.locations]
    return probe, names, final_linear(model) if info.labels else None, more


def _batches(ground: Ground, rows: "Rows", some: Sequence[int]) -> list[dict]:
    """Some of ``rows`` in batches: texts of like length together, which pad little, and the batches in any order."""
    modality = ground.data.info.modality
    if modality == "text":
        some = sorted(some, key=lambda position: len(str(rows[position])))
    # images may take a batch by tiles or patches, so that only a batch of one row can be told apart by rows
    step = 1 if modality == "image-text" else ground.recipe.batch_size
    cuts = [some[start : start + step] for start in range(0, len(some), step)]
    random.Random(ground.seed).shuffle(cuts)
    return [ground.collator([rows[position] for position in cut]) for cut in cuts]
