"""What is known of a task before a budget is named: prices, similar tasks and importance of every location."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from taskit.planning.pricing import Pricing, copied
from taskit.planning.recipe import Recipe
from taskit.planning.step_spec import StepSpec, quiet
from taskit.planning.step_time import block_time, pass_time
from taskit.scheduler import (
    ANY,
    RANKS,
    Constraints,
    Explanation,
    JointSchedule,
    Schedule,
    Step,
    cheapest_lever,
    explain,
    joint_frontier,
    rank_gain,
)
from taskit.step.parametrization import PLAIN, Parametrization, Ranks
from taskit.transfer.importance import IMPORTANCES, Sources, transfer
from taskit.transfer.similarity import MEASURES, TaskSimilarity

HIGHEST = 16  # of the ranks: about as fast as rank 8, where rank 64 takes a tenth longer (benchmarks/levers.py)


@dataclass(frozen=True, slots=True)
class PlanningContext:
    """All that is known before a budget is named; holds no weights, so it can be kept and asked again and again."""

    backbone: Backbone
    data: DataInfo
    recipe: Recipe
    step_spec: StepSpec
    pricing: Pricing
    steps: tuple[Step, ...]  # the ways to take the same step that planning may choose from
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
    def quiet(self) -> "PlanningContext":
        """The same, whose rehearsals report no progress."""
        return replace(self, step_spec=replace(self.step_spec, on_progress=quiet))

    @property
    def floor(self) -> int:
        """The least budget of the additive profiles, in bytes: nothing beyond what the constraints force in."""
        return min(profile.bytes(self.least_ranks) for step in self.steps for profile in _extremes(step))

    @property
    def least_ranks(self) -> tuple[int, ...]:
        """The lowest rank where the constraints force LoRA in, nothing elsewhere."""
        profile = self.pricing.profile
        return tuple(self.constraints.least_ranks(profile.locations, profile.blocks))

    def solve(self, budget_bytes: int) -> JointSchedule:
        """The best way to take the step by the additive profiles at a budget, as the method chooses ranks.

        Raises:
            BudgetError: the budget is below `floor`.
        """
        return self.frontier((budget_bytes,))[0]

    def frontier(self, budgets: Sequence[int]) -> tuple[JointSchedule, ...]:
        """The best schedule at each budget in bytes, or at `floor` where that is more."""
        affordable = [max(budget, self.floor) for budget in budgets]
        if self.resolved.by_importance:  # one table for all
            return joint_frontier(self.steps, self.importance, affordable, **self.solver_options)

        def solve(profile: MemoryProfile, budget: int) -> Schedule:
            return self.resolved.solve(profile, self.importance, budget, **self.solver_options)

        return tuple(cheapest_lever(self.steps, solve, budget) for budget in affordable)

    def profile_of(self, found: JointSchedule) -> MemoryProfile:
        """The additive profile of the step as it was decided."""
        return self.steps[found.step].profile.recomputing(found.recomputed)

    def step_spec_of(self, found: JointSchedule) -> StepSpec:
        """What the schedule is rehearsed on."""
        step = self.steps[found.step]
        step_spec = self.step_spec.passing(step.micro_batch)
        if not step.profile.recomputable:  # that was named, or cannot be
            return step_spec
        names = tuple(step.profile.recomputable[i].name for i in found.recomputed)
        return step_spec.checkpointing(bool(names), names)

    def explain(self, profile: MemoryProfile, ranks: Sequence[int]) -> Explanation | None:
        """Why each location has its rank; None for a method that does not choose ranks by importance."""
        if not self.resolved.by_importance:
            return None
        return explain(profile, self.importance, ranks, **self.solver_options)


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
    pricing = prepared.pricing
    if resolved.fixed is None:
        profiles = {size: copied(one, parametrization) for size, one in pricing.by_micro_batch.items()}
    else:
        require_no_constraints(constraints)
        profiles = {step_spec.micro_batches[0].size: forward_profile(step_spec, resolved.fixed)}
    return PlanningContext(
        backbone=prepared.backbone,
        data=prepared.data.info,
        recipe=prepared.recipe,
        step_spec=step_spec,
        pricing=replace(pricing, profile=next(iter(profiles.values())), by_micro_batch=profiles),
        steps=_steps(prepared, profiles),
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


def _steps(prepared: PreparedTask, profiles: Mapping[int, MemoryProfile]) -> tuple[Step, ...]:
    """The ways to take the step: every micro-batch, in which blocks may be recomputed unless that was named."""
    shapes = {one.size: one.training for one in prepared.step_spec.micro_batches}
    free = prepared.recipe.gradient_checkpointing is None
    found = []
    for size, profile in profiles.items():
        profile = profile if free else profile.recomputing(())
        blocks = len(profile.recomputable)
        found.append(Step(profile, size, pass_time(shapes[size]), (block_time(max(blocks, 1)),) * blocks))
    return tuple(found)


def _extremes(step: Step) -> Iterator[MemoryProfile]:
    """The profile where nothing is recomputed, and where all is."""
    yield step.profile.recomputing(())
    yield step.profile.recomputing(range(len(step.profile.recomputable)))


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
    named = constraints.ranks != RANKS  # what a person names stays named
    return {
        "constraints": constraints,
        "gain": gain,
        "rank_parameters": _rank_parameters(step_spec.locations, PLAIN),
        "rank_limits": None if named else _rank_limits(step_spec.locations),
    }


def _rank_limits(places: Sequence[Location]) -> list[int]:
    """The largest rank of each location: below half of its matrix's smaller side, from where a LoRA outweighs what it
    adapts, and no higher than what still costs next to no time."""
    return [min(max((min(place.in_features, place.out_features) - 1) // 2, 1), HIGHEST) for place in places]


def _rank_parameters(places: Sequence[Location], parametrization: Parametrization) -> list[int]:
    """Trained parameters of each location per unit of rank."""
    return [parametrization.copies(place.name) * (place.in_features + place.out_features) for place in places]
