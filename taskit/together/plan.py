"""Several datasets, one backbone and one budget: who shares with whom, at which rank, and what training all takes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from taskit.backbone.loading import require_task
from taskit.backbone.processors import make_collator
from taskit.backbone.sources import Backbone, find_backbone
from taskit.backbone.target_modules import Location
from taskit.data import Collator, DataInfo, Dataset, load
from taskit.errors import BudgetError, PlanError
from taskit.planning.budget import parse_budget
from taskit.planning.plan import Plan
from taskit.planning.planner import search
from taskit.planning.pricing import Pricing, estimate, planned_locations
from taskit.planning.recipe import Recipe
from taskit.planning.savings import decided
from taskit.planning.step_spec import FULL_RANK, StepSpec, build_step_spec, quiet
from taskit.scheduler import ANY, Schedule, schedule
from taskit.terminal import show_bytes
from taskit.together.affinity import affinity
from taskit.together.rehearsal import rehearse_joint
from taskit.together.task_tree import TaskTree, cut, level_of, require_groups, usual_groups
from taskit.transfer.importance import UNIFORM

SCHEMA = 1
METHOD = "tglora"


@dataclass(frozen=True, slots=True)
class JointPlan:
    """``plans[t]`` is what the run folder of task t keeps: the ranks, budget and peak are those of the whole."""

    tree: TaskTree
    plans: tuple[Plan, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "tree": asdict(self.tree), "plans": [plan.to_dict() for plan in self.plans]}

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str) -> "JointPlan":
        """Raises PlanError where ``values``, read from ``source``, are not those of `to_dict`."""
        try:
            if values["schema"] != SCHEMA:
                raise ValueError(f"schema {values['schema']}")
            tree = TaskTree.from_json(values["tree"])
            return cls(tree, tuple(Plan.from_dict(one, source) for one in values["plans"]))
        except (ValueError, KeyError, TypeError) as error:
            raise PlanError(f"{source} is no joint plan ({error}); run taskit together again.") from error

    @classmethod
    def load(cls, path: Path) -> "JointPlan":
        """Raises PlanError for a file that `to_dict` has not written."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PlanError(f"{path} is no joint plan ({error}); run taskit together again.") from error
        return cls.from_dict(values, str(path))


@dataclass(frozen=True, slots=True)
class _Setting:
    """All datasets, and the training step of each."""

    names: tuple[str, ...]
    data: tuple[Dataset, ...]
    collators: tuple[Collator, ...]
    step_specs: tuple[StepSpec, ...]
    groups: tuple[int, ...]

    @property
    def locations(self) -> tuple[Location, ...]:
        return self.step_specs[0].locations

    def strategy(self, ranks: Sequence[int]) -> dict[str, int]:
        """The rank of each location by its name."""
        return {location.name: rank for location, rank in zip(self.locations, ranks, strict=True)}

    @property
    def anyone(self) -> TaskTree:
        """A tree with as many groups, whoever is in them."""
        return TaskTree(self.names, (), cut(np.eye(len(self.names)), self.groups))

    def rehearse(self, ranks: Sequence[int], tree: TaskTree) -> int:
        """The peak of training with these ranks along ``tree``, in bytes.

        Who is in a group matters as well: a pair that tasks share gets its gradient with the first of them.
        """
        return rehearse_joint(self.step_specs, self.strategy(ranks), tree)

    def price(self) -> Pricing:
        """The additive profile of the task with the largest batch, with the pairs of all groups and all heads."""
        full, nothing = (FULL_RANK,) * len(self.locations), (0,) * len(self.locations)
        profile = max((step_spec.trace() for step_spec in self.step_specs), key=lambda one: one.bytes(full))
        no_update, blocks = self.rehearse(nothing, self.anyone), self.locations[-1].block + 1
        pairs = [self.groups[level_of(location.block, blocks, len(self.groups))] for location in self.locations]
        profile = replace(
            profile,
            constant_bytes=profile.constant_bytes + no_update - profile.bytes(nothing),
            rank_bytes=tuple(size * count for size, count in zip(profile.rank_bytes, pairs, strict=True)),
        )
        return Pricing(profile, no_update, profile.bytes(full))


def plan_together(
    sources: Sequence[str],
    backbone_id: str,
    budget: str,
    *,
    groups: Sequence[int] | None = None,
    recipe: Recipe | None = None,
    columns: Mapping[str, str] | None = None,
    dtype: str = "float32",
    seed: int = 0,
    on_progress: Callable[[str], None] = quiet,
) -> JointPlan:
    """The tree of groups, ``groups[s]`` of them at depth level s, and the best ranks that fit the budget.

    Without ``groups`` their number is 1 for half of the depth, and rises to one for each dataset.  ``columns`` are
    those of every dataset.

    Raises:
        PlanError: fewer than two datasets, datasets of different tasks, or numbers of groups that make no tree.
        BudgetError: the budget admits no LoRA.
    """
    wanted = parse_budget(budget)
    require_groups(groups or (1,), len(sources), len(groups or (1,)))  # before anything is read
    recipe = recipe or Recipe()
    recipe = recipe.passing(recipe.batch_size)  # one batch of each task in a step, each of them whole
    backbone = find_backbone(backbone_id, dtype=dtype)
    on_progress("reading the data")
    setting = _set(sources, backbone, recipe, groups, columns, seed)
    on_progress("tracing a training step without weights")
    pricing = setting.price()
    limit = wanted.resolve(pricing.no_update_bytes, pricing.full_lora_bytes)
    found, _ = _schedule(setting, pricing, limit, setting.anyone)
    ranks = setting.strategy(found.ranks)
    similarity = affinity(backbone, setting.data, setting.collators, ranks, recipe, seed, on_progress)
    rounded = tuple(tuple(round(value, 4) for value in row) for row in similarity.tolist())
    tree = TaskTree(setting.names, rounded, cut(similarity, setting.groups))
    found, peak = _schedule(setting, pricing, limit, tree)
    make = partial(_plan, backbone, pricing, recipe, seed, found, limit, peak)
    return JointPlan(tree, tuple(map(make, setting.step_specs, (one.info for one in setting.data))))


def _set(
    sources: Sequence[str],
    backbone: Backbone,
    recipe: Recipe,
    groups: Sequence[int] | None,
    columns: Mapping[str, str] | None,
    seed: int,
) -> _Setting:
    data = [load(source, columns=columns, seed=seed) for source in sources]
    _require_one_task(sources, data)
    task = data[0].info.task
    require_task(backbone, task)
    collators = tuple(make_collator(backbone, task, recipe.max_length) for _ in data)
    data = tuple(one.learnable(collator) for one, collator in zip(data, collators, strict=True))
    step_specs = tuple(
        build_step_spec(backbone, one, recipe, collate, seed=seed)
        for one, collate in zip(data, collators, strict=True)
    )
    blocks = step_specs[0].locations[-1].block + 1
    chosen = tuple(groups or usual_groups(len(data), blocks))
    require_groups(chosen, len(data), blocks)
    return _Setting(_names(sources), data, collators, step_specs, chosen)


def _require_one_task(sources: Sequence[str], data: Sequence[Dataset]) -> None:
    for source, one in zip(sources, data, strict=True):
        if one.info.task != data[0].info.task:
            raise PlanError(
                f"{sources[0]} is {data[0].info.task} and {source} is {one.info.task}, which do not train together; "
                "give datasets of one kind, or plan each alone with taskit plan."
            )


def _names(sources: Sequence[str]) -> tuple[str, ...]:
    """One name for each dataset, and the same for none; they become folders."""
    stems = [Path(source).stem.removeprefix("hub:") or "data" for source in sources]
    return tuple(
        stem if stems.count(stem) == 1 else f"{stem}-{stems[: position + 1].count(stem)}"
        for position, stem in enumerate(stems)
    )


def _schedule(setting: _Setting, pricing: Pricing, limit: int, tree: TaskTree) -> tuple[Schedule, int]:
    """The best ranks within ``limit`` bytes where all locations matter alike, and their peak, rehearsed on ``tree``.

    Raises:
        BudgetError: none fit.
    """
    importance = (1.0,) * len(setting.locations)
    sizes = [location.in_features + location.out_features for location in setting.locations]
    solve = partial(schedule, pricing.profile, importance, constraints=ANY, rank_parameters=sizes)
    nothing = pricing.profile.bytes((0,) * len(importance))
    found, peak = search(lambda one: setting.rehearse(one.ranks, tree), solve, limit, nothing)
    if not any(found.ranks):
        raise BudgetError(
            f"The budget of {show_bytes(limit)} admits no LoRA that datasets could share; give "
            f"{show_bytes(found.shortfall_bytes)} more, or train one dataset at a time with taskit plan."
        )
    return found, peak


def _plan(
    backbone: Backbone,
    pricing: Pricing,
    recipe: Recipe,
    seed: int,
    found: Schedule,
    limit: int,
    peak: int,
    step_spec: StepSpec,
    info: DataInfo,
) -> Plan:
    sources = ({UNIFORM: 1.0},) * len(step_spec.locations)
    return Plan(
        method=METHOD,
        seed=seed,
        backbone=backbone,
        data=info,
        budget_bytes=limit,
        memory=estimate(pricing, found.ranks, peak),
        similarity_measure="none",
        similarity=(),
        skipped=(),
        locations=planned_locations(step_spec.locations, sources, found.ranks, pricing.profile),
        objective=found.objective,
        trainable_parameters=step_spec.trainable_parameters(found.ranks),
        training=decided(recipe, step_spec, found.ranks),
        training_rows=step_spec.training_rows,
    )
