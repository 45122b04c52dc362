"""What is known of a task before a budget is named: prices, similar tasks and importance of every location."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from taskit.locations import Location
from taskit.memory.profile import MemoryProfile
from taskit.methods import find_method
from taskit.methods.composing import Composing
from taskit.methods.form import PLAIN, Form, Ranks
from taskit.methods.method import Method, Scene, Settled, read_options
from taskit.plan import SkippedAdapter
from taskit.pricing import Pricing, Stage, copied, price, set_stage
from taskit.processor import load_processor
from taskit.scheduler import ANY, Constraints, rank_gain
from taskit.similarity import MEASURES, TaskSimilarity
from taskit.training.recipe import Recipe
from taskit.transfer import Measurement, Sight, glance, sighted, weigh
from taskit.untrained import forward_profile, require_no_wishes
from taskit.zoo import Zoo, find_zoo

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

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
    settled: Settled
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
    method_options: Mapping[str, Any] | None = None,
    gain: str = "sqrt_ln1p",
    constraints: Constraints = ANY,
    seed: int = 0,
    token: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Outlook:
    """Everything but the budget: read the data, price every location, compare the task with the zoo.

    ``zoo`` is a folder of PEFT adapters or a part of the Hub (see `open_zoo`), which ``token`` may read; without
    one, the bundled adapters of the backbone.  ``similarity`` is one of MEASURES, ``importance`` of IMPORTANCES,
    ``method`` of METHODS, with ``method_options`` of its own, ``gain`` a form of h (rank_gain), and ``constraints``
    bound all that is trained, heads included.
    """
    _require("similarity", similarity, MEASURES)
    _require("importance", importance, IMPORTANCES)
    chosen = find_method(method)
    given = read_options(chosen, method_options or {})
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
    with sighted(model, *draw(model, data, collator, recipe, seed)) as sight:
        found, similarity = _look(chosen, sight, names, learned, similarity, importance)
        revisions = {task.adapter: task.revision for task in learned.tasks}
        similarities = tuple(replace(s, revision=revisions[s.adapter]) for s in found.similarities)
        source_of_zoo = None if zoo is None else str(zoo)
        scene = Scene(sight, stage.locations, learned, source_of_zoo, similarities, stage.heads, seed)
        settled = chosen.settle(scene, given)
    form = chosen.form(settled.options({}))
    stage = replace(stage, form_of=partial(_form_of, method, settled))
    return Outlook(
        backbone=backbone,
        data=data.info,
        recipe=recipe,
        stage=stage,
        pricing=replace(pricing, profile=_profile(pricing.profile, stage, settled, form, constraints)),
        similarity_measure=settled.measure or similarity,
        importance_measure=importance,
        similarity=settled.similarity or similarities,
        skipped=tuple(SkippedAdapter(*item) for item in (*learned.skipped, *found.skipped)),
        sources=transfer(similarities, found.importances, found.own, importance),
        method=method,
        settled=settled,
        gain=gain,
        constraints=constraints,
        wishes={**wishes, "rank_parameters": _rank_parameters(stage.locations, form)},
        seed=seed,
    )


def _look(
    method: Method, sight: Sight, names: Sequence[str], zoo: Zoo, similarity: str, importance: str
) -> tuple[Measurement, str]:
    """The learned tasks, and the measure of similarity: one without a trial where nothing is to be trained."""
    if isinstance(method, Composing):
        return glance(sight, names, zoo.tasks), "delta"
    return weigh(sight, names, zoo.tasks, similarity, importance), similarity


def _profile(
    profile: MemoryProfile, stage: Stage, settled: Settled, form: Form, constraints: Constraints
) -> MemoryProfile:
    """That of training in ``form``, or where nothing is trained, that of a forward pass."""
    if settled.fixed is None:
        return copied(profile, form)
    require_no_wishes(constraints)
    return forward_profile(stage, settled.fixed)


def _require(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise PlanError(f"There is no {what} called {name!r}; choose one of {', '.join(known)}.")


def _form_of(method: str, settled: Settled, ranks: Ranks) -> Form:
    """By the method's name and by what the plan would keep, so that it can be pickled, and the plan reproduces it."""
    return find_method(method).form(settled.options(ranks))


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
    return {"constraints": constraints, "gain": gain, "rank_parameters": _rank_parameters(stage.locations, PLAIN)}


def _rank_parameters(places: Sequence[Location], form: Form) -> list[int]:
    """Trained parameters of each place per unit of rank."""
    return [form.copies(place.name) * (place.in_features + place.out_features) for place in places]


def make_collator(backbone: Backbone, task: str, max_length: int | None) -> Collator:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source_of(backbone), local_files_only=True)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if max_length is not None and positions is not None and max_length > positions:
        raise PlanError(f"max_length is {max_length}, but {backbone.id} reads {positions} tokens; give at most that.")
    processor = load_processor(backbone, task=task)
    return Collator(task, processor, max_length, encoder_decoder=bool(config.is_encoder_decoder))


def draw(
    model: "PreTrainedModel", data: Dataset, collator: Collator, recipe: Recipe, seed: int
) -> "tuple[list[dict], nn.Linear | None, list[dict]]":
    """A probe of the training rows, the last linear of the head, and further rows: what `sighted` takes."""
    rows = min(len(data.train), max(HEAD_ROWS if data.info.labels else PROBE_ROWS, 4 * len(data.info.labels)))
    drawn = data.train.shuffle(seed=seed).select(range(rows))
    # images may take a batch by tiles or patches, so that only a batch of one row can be told apart by rows
    step = 1 if data.info.modality == "image-text" else recipe.batch_size
    batches = [collator([drawn[i] for i in range(start, min(start + step, rows))]) for start in range(0, rows, step)]
    probed = -(-max(PROBE_ROWS, 4 * len(data.info.labels)) // step)
    head = final_linear(model) if data.info.labels else None
    return batches[:probed], head, batches[probed:]
