"""What is known of a task before a budget is named: prices, similar tasks and importance of every location."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskit.backbone import (
    Backbone,
    final_linear,
    find_backbone,
    load_model,
    require_task,
    source_of,
)
from taskit.data import Collator, DataInfo, Dataset, load
from taskit.errors import PlanError
from taskit.importance import IMPORTANCES, Sources, transfer
from taskit.plan import SkippedAdapter
from taskit.pricing import Pricing, Stage, price, set_stage
from taskit.processor import load_processor
from taskit.scheduler import ANY, Constraints, rank_gain, schedule, schedule_uniform
from taskit.similarity import MEASURES, TaskSimilarity
from taskit.training.recipe import Recipe
from taskit.transfer import Measurement, measure
from taskit.zoo import Zoo, bundled_zoo, open_zoo

if TYPE_CHECKING:
    from transformers import PreTrainedModel

METHODS = {"taskit": schedule, "uniform": schedule_uniform}  # how importance becomes ranks
PROBE_ROWS = 128  # on which every learned task is tried
HEAD_ROWS = 1024  # on which the head that stands for the one to come is fitted


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that is known before a budget is named; holds no weights, so it can be kept and asked again and again."""

    backbone: Backbone
    data: DataInfo
    recipe: Recipe
    stage: Stage
    pricing: Pricing
    similarity_measure: str
    importance_measure: str
    similarity: tuple[TaskSimilarity, ...]
    skipped: tuple[SkippedAdapter, ...]
    sources: tuple[Sources, ...]  # of the importance of each location
    method: str
    gain: str
    constraints: Constraints
    wishes: Mapping[str, Any]  # what the scheduler has to obey
    seed: int

    @property
    def importance(self) -> tuple[float, ...]:
        """Predicted importance of each location."""
        return tuple(sum(addends.values()) for addends in self.sources)

    @property
    def floor(self) -> int:
        """The least budget of the additive profile, in bytes: nothing beyond what the constraints force in."""
        profile = self.pricing.profile
        return profile.bytes(self.constraints.least_ranks(profile.locations, profile.blocks))


def prepare(
    source: str | Path,
    backbone_id: str,
    *,
    zoo: str | Path | None = None,
    recipe: Recipe | None = None,
    columns: Mapping[str, str] | None = None,
    dtype: str = "float32",
    quantization: str | None = None,
    attention: str | None = None,
    similarity: str = "trial",
    importance: str = "blend",
    method: str = "taskit",
    gain: str = "sqrt_ln1p",
    constraints: Constraints = ANY,
    seed: int = 0,
    token: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Outlook:
    """Everything but the budget: read the data, price every location, compare the task with the zoo.

    ``zoo`` is a folder of PEFT adapters or a part of the Hub (see `open_zoo`), which ``token`` may read; without
    one, the bundled adapters of the backbone.  ``similarity`` is one of MEASURES, ``importance`` of IMPORTANCES,
    ``method`` of METHODS, ``gain`` a form of h (rank_gain), and ``constraints`` bound all that is trained, heads
    included.
    """
    _require("similarity", similarity, MEASURES)
    _require("importance", importance, IMPORTANCES)
    _require("method", method, METHODS)
    rank_gain(0, 1, gain)  # refuses an unknown form before anything is read
    recipe = recipe or Recipe()
    backbone = find_backbone(backbone_id, dtype=dtype, quantization=quantization, attention=attention)
    tell("reading the data")
    data = load(source, columns=columns, seed=seed)
    require_task(backbone, data.info.task)
    tell("tracing a training step without weights")
    collator = make_collator(backbone, data.info.task, recipe.max_length)
    stage = set_stage(backbone, data, recipe, collator, tell, constraints.vision_tower)
    wishes = _wishes(stage, constraints, gain)
    pricing = price(stage)
    tell("loading the backbone")
    learned = find_zoo(zoo, backbone, token)
    if learned.note:
        tell(learned.note)
    model = load_model(backbone, task=data.info.task, labels=data.info.labels)
    tell(f"comparing the task with {len(learned.tasks)} learned ones")
    names = [place.name for place in stage.locations]
    found = compare(model, data, collator, names, learned, recipe, seed, similarity, importance)
    revisions = {task.adapter: task.revision for task in learned.tasks}
    similarities = tuple(replace(s, revision=revisions[s.adapter]) for s in found.similarities)
    return Outlook(
        backbone=backbone,
        data=data.info,
        recipe=recipe,
        stage=stage,
        pricing=pricing,
        similarity_measure=similarity,
        importance_measure=importance,
        similarity=similarities,
        skipped=tuple(SkippedAdapter(*item) for item in (*learned.skipped, *found.skipped)),
        sources=transfer(similarities, found.importances, found.own, importance),
        method=method,
        gain=gain,
        constraints=constraints,
        wishes=wishes,
        seed=seed,
    )


def _require(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise PlanError(f"There is no {what} called {name!r}; choose one of {', '.join(known)}.")


def find_zoo(zoo: str | Path | None, backbone: Backbone, token: str | None = None, *, ask: bool = False) -> Zoo:
    """The zoo that a person named, or the bundled one, for exactly this backbone."""
    if zoo is None:
        return bundled_zoo(backbone.id, backbone.revision)
    return open_zoo(zoo, backbone.id, revision=backbone.revision, token=token, ask=ask)


def _wishes(stage: Stage, constraints: Constraints, gain: str) -> dict[str, Any]:
    """What the scheduler has to obey; the heads' share is taken off the bound on trained parameters.

    Raises:
        PlanError: no strategy over these locations can obey.
    """
    constraints.candidates([place.name for place in stage.locations], [place.block for place in stage.locations])
    if constraints.max_parameters is not None:
        left = constraints.max_parameters - stage.head_parameters
        if left < 1:
            raise PlanError(
                f"The heads alone train {stage.head_parameters:,} parameters, which leaves nothing of the "
                f"{constraints.max_parameters:,} allowed; allow more."
            )
        constraints = replace(constraints, max_parameters=left)
    per_rank = [place.in_features + place.out_features for place in stage.locations]
    return {"constraints": constraints, "gain": gain, "rank_parameters": per_rank}


def make_collator(backbone: Backbone, task: str, max_length: int | None) -> Collator:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source_of(backbone), local_files_only=True)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if max_length is not None and positions is not None and max_length > positions:
        raise PlanError(f"max_length is {max_length}, but {backbone.id} reads {positions} tokens; give at most that.")
    processor = load_processor(backbone, task=task)
    return Collator(task, processor, max_length, encoder_decoder=bool(config.is_encoder_decoder))


def compare(
    model: "PreTrainedModel",
    data: Dataset,
    collator: Collator,
    names: Sequence[str],
    zoo: Zoo,
    recipe: Recipe,
    seed: int,
    kind: str,
    importance: str,
) -> Measurement:
    """Similarity and importance of every learned task, on a probe drawn from the training rows."""
    rows = min(len(data.train), max(HEAD_ROWS if data.info.labels else PROBE_ROWS, 4 * len(data.info.labels)))
    drawn = data.train.shuffle(seed=seed).select(range(rows))
    # images may take a batch by tiles or patches, so that only a batch of one row can be told apart by rows
    step = 1 if data.info.modality == "image-text" else recipe.batch_size
    batches = [collator([drawn[i] for i in range(start, min(start + step, rows))]) for start in range(0, rows, step)]
    probed = -(-max(PROBE_ROWS, 4 * len(data.info.labels)) // step)
    head = final_linear(model) if data.info.labels else None
    return measure(
        model, batches[:probed], names, head, zoo.tasks, batches[probed:], kind=kind, importance=importance
    )
