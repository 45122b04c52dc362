"""What is known of a task before a budget is named: prices, similar tasks and importance of every location."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from taskit.backbone.loading import Backbone
from taskit.backbone.target_modules import Location
from taskit.data import DataInfo
from taskit.errors import PlanError
from taskit.memory.profile import MemoryProfile
from taskit.methods import find_method
from taskit.methods.composing import Composing
from taskit.methods.method import Method, Scene, Settled, read_options
from taskit.planning.forward_only import forward_profile, require_no_wishes
from taskit.planning.plan import SkippedAdapter
from taskit.planning.prepared_task import Ground, Survey, break_ground, surveyed
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import Pricing, Stage, copied, silent
from taskit.scheduler import ANY, Constraints, rank_gain
from taskit.step.parametrization import PLAIN, Form, Ranks
from taskit.transfer.importance import IMPORTANCES, Sources, transfer
from taskit.transfer.similarity import MEASURES, TaskSimilarity


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that is known before a budget is named; holds no weights, so it can be kept and asked again and again."""

    backbone: Backbone
    data: DataInfo
    recipe: Recipe
    stage: Stage
    pricing: Pricing
    again: tuple[Stage, Pricing] | None  # where blocks are recomputed, if planning may decide that and the model can
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
    def recomputing(self) -> "Outlook | None":
        """The same where blocks are recomputed in the backward pass; None where that is no choice."""
        return self.again and replace(self, stage=self.again[0], pricing=self.again[1], again=None)

    @property
    def hushed(self) -> "Outlook":
        """The same, whose rehearsals tell nobody."""
        again = self.again and (replace(self.again[0], tell=silent), self.again[1])
        return replace(self, stage=replace(self.stage, tell=silent), again=again)

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
    ground = break_ground(
        source,
        backbone_id,
        recipe or Recipe(),
        columns=columns,
        dtype=dtype,
        quantization=quantization,
        attention=attention,
        vision_tower=constraints.vision_tower,
        seed=seed,
        tell=tell,
    )
    _wishes(ground.stage, constraints, gain)  # refused before a weight is loaded
    measures = {"similarity": similarity, "importance": importance}
    with surveyed(ground, zoo=zoo, token=token, **measures, tell=tell) as survey:
        return settle(survey, chosen, given, gain=gain, constraints=constraints)


def settle(
    survey: Survey,
    method: Method,
    options: Mapping[str, Any],
    *,
    gain: str = "sqrt_ln1p",
    constraints: Constraints = ANY,
) -> Outlook:
    """What ``method`` makes of a survey, which several methods may share; ``options`` are all that it has."""
    ground, zoo = survey.ground, survey.zoo
    stage, composing = ground.stage, isinstance(method, Composing)
    found = survey.glanced if composing else survey.weighed
    revisions = {task.adapter: task.revision for task in zoo.tasks}
    similarities = tuple(replace(s, revision=revisions[s.adapter]) for s in found.similarities)
    scene = Scene(survey.sight, stage.locations, zoo, survey.zoo_source, similarities, stage.heads, ground.seed)
    settled = method.settle(scene, options)
    form = method.form(settled.options({}))
    wishes = _wishes(stage, constraints, gain)
    stage = replace(stage, form_of=partial(_form_of, method.name, settled))
    free = ground.recipe.gradient_checkpointing is None and settled.fixed is None
    return Outlook(
        backbone=ground.backbone,
        data=ground.data.info,
        recipe=ground.recipe,
        stage=stage,
        pricing=replace(ground.pricing, profile=_profile(ground.pricing.profile, stage, settled, form, constraints)),
        again=_recomputing(ground, stage, form) if free else None,
        similarity_measure=settled.measure or ("delta" if composing else survey.similarity),
        importance_measure=survey.importance,
        similarity=settled.similarity or similarities,
        skipped=tuple(SkippedAdapter(*item) for item in (*zoo.skipped, *found.skipped)),
        sources=transfer(similarities, found.importances, found.own, survey.importance),
        method=method.name,
        settled=settled,
        gain=gain,
        constraints=constraints,
        wishes={**wishes, "rank_parameters": _rank_parameters(stage.locations, form)},
        seed=ground.seed,
    )


def _recomputing(ground: Ground, stage: Stage, form: Form) -> tuple[Stage, Pricing] | None:
    """Stage and prices where blocks are recomputed; the ends of the scale stay. None for a model that cannot."""
    try:
        profile = ground.stage.checkpointing(True).trace()
    except PlanError:
        return None
    return stage.checkpointing(True), replace(ground.pricing, profile=copied(profile, form))


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
