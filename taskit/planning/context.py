"""What is known of a task before a budget is named: prices, similar tasks and importance of every location."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from taskit.backbone.sources import Backbone
from taskit.backbone.target_modules import Location
from taskit.data import DataInfo
from taskit.errors import PlanError
from taskit.memory.profile import MemoryProfile
from taskit.methods import find_method
from taskit.methods.composing import Composing
from taskit.methods.method import Method, MethodContext, ResolvedMethod, read_options
from taskit.planning.forward_only import forward_profile, require_no_constraints
from taskit.planning.plan import SkippedAdapter
from taskit.planning.prepared_task import ComparedTask, PreparedTask, compare_with_zoo, prepare_task
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import Pricing, StepSpec, copied, quiet
from taskit.scheduler import ANY, Constraints, Explanation, Schedule, explain, frontier, rank_gain
from taskit.step.parametrization import PLAIN, Parametrization, Ranks
from taskit.transfer.importance import IMPORTANCES, Sources, transfer
from taskit.transfer.similarity import MEASURES, TaskSimilarity


@dataclass(frozen=True, slots=True)
class PlanningContext:
    """All that is known before a budget is named; holds no weights, so it can be kept and asked again and again."""

    backbone: Backbone
    data: DataInfo
    recipe: Recipe
    step_spec: StepSpec
    pricing: Pricing
    again: tuple[StepSpec, Pricing] | None  # where blocks are recomputed, if planning may decide that
    similarity_measure: str
    importance_measure: str
    similarity: tuple[TaskSimilarity, ...]
    skipped: tuple[SkippedAdapter, ...]
    sources: tuple[Sources, ...]  # of the importance of each location
    method: str
    resolved: ResolvedMethod
    gain: str
    constraints: Constraints
    solver_options: Mapping[str, Any]  # the keywords of `taskit.scheduler.schedule`
    seed: int

    @property
    def importance(self) -> tuple[float, ...]:
        """Predicted importance of each location."""
        return tuple(sum(addends.values()) for addends in self.sources)

    @property
    def recomputing(self) -> "PlanningContext | None":
        """The same where blocks are recomputed in the backward pass; None where that is no choice."""
        return self.again and replace(self, step_spec=self.again[0], pricing=self.again[1], again=None)

    @property
    def quiet(self) -> "PlanningContext":
        """The same, whose rehearsals report no progress."""
        again = self.again and (replace(self.again[0], on_progress=quiet), self.again[1])
        return replace(self, step_spec=replace(self.step_spec, on_progress=quiet), again=again)

    @property
    def floor(self) -> int:
        """The least budget of the additive profile, in bytes: nothing beyond what the constraints force in."""
        profile = self.pricing.profile
        return profile.bytes(self.constraints.least_ranks(profile.locations, profile.blocks))

    def solve(self, budget_bytes: int) -> Schedule:
        """The best schedule of the additive profile at a budget, as the method chooses ranks.

        Raises:
            BudgetError: the budget is below `floor`.
        """
        return self.resolved.solve(self.pricing.profile, self.importance, budget_bytes, **self.solver_options)

    def frontier(self, budgets: Sequence[int]) -> tuple[Schedule, ...]:
        """The best schedule at each budget in bytes, or at `floor` where that is more."""
        affordable = [max(budget, self.floor) for budget in budgets]
        if self.resolved.by_importance:  # one table for all
            return frontier(self.pricing.profile, self.importance, affordable, **self.solver_options)
        return tuple(map(self.solve, affordable))

    def explain(self, ranks: Sequence[int]) -> Explanation | None:
        """Why each location has its rank; None for a method that does not choose ranks by importance."""
        if not self.resolved.by_importance:
            return None
        return explain(self.pricing.profile, self.importance, ranks, **self.solver_options)


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
    on_progress: Callable[[str], None] = lambda _: None,
) -> PlanningContext:
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
    rank_gain(0, 1, gain)  # raises for an unknown form before anything is read
    prepared = prepare_task(
        source,
        backbone_id,
        recipe or Recipe(),
        columns=columns,
        dtype=dtype,
        quantization=quantization,
        attention=attention,
        vision_tower=constraints.vision_tower,
        seed=seed,
        on_progress=on_progress,
    )
    _solver_options(prepared.step_spec, constraints, gain)  # raises before a weight is loaded
    measures = {"similarity": similarity, "importance": importance}
    with compare_with_zoo(prepared, zoo=zoo, token=token, **measures, on_progress=on_progress) as compared:
        return resolve(compared, chosen, given, gain=gain, constraints=constraints)


def resolve(
    compared: ComparedTask,
    method: Method,
    options: Mapping[str, Any],
    *,
    gain: str = "sqrt_ln1p",
    constraints: Constraints = ANY,
) -> PlanningContext:
    """The planning context of ``method`` for a compared task, which several methods may share.

    ``options`` holds a value for each option of the method.
    """
    prepared, zoo = compared.prepared, compared.zoo
    step_spec, composing = prepared.step_spec, isinstance(method, Composing)
    found = compared.forward_only if composing else compared.with_trial
    revisions = {task.adapter: task.revision for task in zoo.tasks}
    similarities = tuple(replace(s, revision=revisions[s.adapter]) for s in found.similarities)
    context = MethodContext(
        compared.probe_context,
        step_spec.locations,
        zoo,
        compared.zoo_source,
        similarities,
        step_spec.heads,
        prepared.seed,
    )
    resolved = method.resolve(context, options)
    parametrization = method.parametrization(resolved.options({}))
    solver_options = _solver_options(step_spec, constraints, gain)
    step_spec = replace(step_spec, parametrization_of=partial(_parametrization_of, method.name, resolved))
    free = prepared.recipe.gradient_checkpointing is None and resolved.fixed is None
    return PlanningContext(
        backbone=prepared.backbone,
        data=prepared.data.info,
        recipe=prepared.recipe,
        step_spec=step_spec,
        pricing=replace(
            prepared.pricing,
            profile=_profile(prepared.pricing.profile, step_spec, resolved, parametrization, constraints),
        ),
        again=_recomputing(prepared, step_spec, parametrization) if free else None,
        similarity_measure=resolved.measure or ("delta" if composing else compared.similarity),
        importance_measure=compared.importance,
        similarity=resolved.similarity or similarities,
        skipped=tuple(SkippedAdapter(*item) for item in (*zoo.skipped, *found.skipped)),
        sources=transfer(similarities, found.importances, found.own, compared.importance),
        method=method.name,
        resolved=resolved,
        gain=gain,
        constraints=constraints,
        solver_options={**solver_options, "rank_parameters": _rank_parameters(step_spec.locations, parametrization)},
        seed=prepared.seed,
    )


def _recomputing(
    prepared: PreparedTask, step_spec: StepSpec, parametrization: Parametrization
) -> tuple[StepSpec, Pricing] | None:
    """Step and prices where blocks are recomputed; the ends of the scale stay. None for a model that cannot."""
    try:
        profile = prepared.step_spec.checkpointing(True).trace()
    except PlanError:
        return None
    return step_spec.checkpointing(True), replace(prepared.pricing, profile=copied(profile, parametrization))


def _profile(
    profile: MemoryProfile,
    step_spec: StepSpec,
    resolved: ResolvedMethod,
    parametrization: Parametrization,
    constraints: Constraints,
) -> MemoryProfile:
    """That of training with this parametrization, or where nothing is trained, that of a forward pass."""
    if resolved.fixed is None:
        return copied(profile, parametrization)
    require_no_constraints(constraints)
    return forward_profile(step_spec, resolved.fixed)


def _require(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise PlanError(f"There is no {what} called {name!r}; choose one of {', '.join(known)}.")


def _parametrization_of(method: str, resolved: ResolvedMethod, ranks: Ranks) -> Parametrization:
    """By the method's name and by what the plan would keep, so that it can be pickled, and the plan reproduces it."""
    return find_method(method).parametrization(resolved.options(ranks))


def _solver_options(step_spec: StepSpec, constraints: Constraints, gain: str) -> dict[str, Any]:
    """The keywords of `taskit.scheduler.schedule`; the heads' share is taken off the bound on trained parameters.

    Raises:
        PlanError: no strategy over these locations can obey.
    """
    constraints.candidates(
        [place.name for place in step_spec.locations], [place.block for place in step_spec.locations]
    )
    if constraints.max_parameters is not None:
        left = constraints.max_parameters - step_spec.head_parameters
        if left < 1:
            raise PlanError(
                f"The heads alone train {step_spec.head_parameters:,} parameters, which leaves nothing of the "
                f"{constraints.max_parameters:,} allowed; allow more."
            )
        constraints = replace(constraints, max_parameters=left)
    return {"constraints": constraints, "gain": gain, "rank_parameters": _rank_parameters(step_spec.locations, PLAIN)}


def _rank_parameters(places: Sequence[Location], parametrization: Parametrization) -> list[int]:
    """Trained parameters of each location per unit of rank."""
    return [parametrization.copies(place.name) * (place.in_features + place.out_features) for place in places]
