"""The ways of training that the table compares, all in the loop of the bench, each at several learning rates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.accuracies.suite import zoo_without
from benchmarks.methods import recipe_of
from benchmarks.references import Allocating, adalora, everything
from benchmarks.transferring.agreement import ablation_drops
from benchmarks.transferring.bench import Batch, Bench, accuracy
from benchmarks.transferring.evidence import directions, spt, unlabelled
from benchmarks.transferring.families import Family
from benchmarks.transferring.plans import Ranks, step_spec_of, strategies
from benchmarks.transferring.truth import ablate, learn
from taskit.data import load
from taskit.methods.eva import Directed
from taskit.planning.budget import parse_budget
from taskit.planning.context import PlanningContext, prepare
from taskit.planning.plan import Plan
from taskit.planning.planner import decide, make_plan, search, uniform_plan
from taskit.planning.pricing import price
from taskit.planning.step_spec import StepSpec
from taskit.scheduler import schedule, schedule_uniform
from taskit.step.parametrization import Preparation
from taskit.training.trainer import train
from taskit.transfer.probe import example_features, frozen
from taskit.transfer.ridge_head import SOFTENED

KEEPING = "taskit-keeping"  # recomputes nothing, as all below but
CHECKPOINTING = "-checkpointing"  # a way whose name ends so recomputes blocks, within the same bytes
IMPORTANCES = {  # for TaskIT's scheduler in place of its own, by way; values are properties of a `Task`
    "random": "at_random",
    "sensitivity": "sensitive",
    "oracle": "ablated",
}
LEAST = 1e-9  # importance of what costs nothing, or less, to take away
BOUNDED = (  # within the budget
    *("taskit", KEEPING, *IMPORTANCES, "uniform", "eva", "last-blocks", "last-blocks-r8"),
    *("random-checkpointing", "uniform-checkpointing"),
)
FREE = ("everywhere", "adalora", "full", "head", "zero-ft")  # cost what they cost
WAYS = (*BOUNDED, *FREE)
RATES = (5e-4, 1.5e-3, 4.5e-3)
FULL_RATES = (2e-5, 6e-5, 1.8e-4)
VARIANTS = (  # of TaskIT's plan: learned tasks that it may look at, h(r), Eq. (3), Eq. (4)
    *("learned-1", "learned-2", "learned-4"),
    *("gain-one", "gain-linear", "gain-ln", "gain-sqrt", "gain-sqrt_ln"),
    *("importance-ratio", "importance-absolute", "importance-l2", "similarity-raw", "similarity-gradient"),
)
Row = dict[str, Any]


def as_it_is(_: Any) -> None:
    """Start a model where it is."""


@dataclass(frozen=True, slots=True)
class Training:
    """One model to train: plain LoRA of ``ranks`` started by ``started``, or what ``make`` makes of the backbone."""

    ranks: Ranks
    recomputes: bool = False  # in the plan; the bench keeps all activations of whole batches, which trains the same
    planned: Row | None = None  # peak and micro-batch of what the product plans
    make: Callable[[Any, tuple[str, ...]], Any] | None = None
    started: Callable[[Any], None] = as_it_is
    allocating: bool = False
    rates: Sequence[float] = RATES
    divisor: float = 1.0  # the bench lets all but LoRA learn SOFTENED times as fast


class Task:
    """One task with one seed, ready for every way."""

    def __init__(
        self, family: Family, task: str, seed: int, source: Path, spare: Path, zoo: Path, scratch: Path
    ) -> None:
        """``source`` has the rows to train and to test, ``spare`` in place of the latter such as choose rates."""
        self.family, self.task, self.seed, self.source, self.spare = family, task, seed, source, spare
        self.zoo, self.scratch, self.recipe = zoo, scratch, recipe_of(family)
        self.contexts: dict[tuple[str, str | None], PlanningContext] = {}
        self.fitting: dict[int, dict[str, Ranks]] = {}  # by share, of what needs no importance
        self.trained: dict[tuple[Ranks, float], Row] = {}  # by ranks and rate

    @cached_property
    def bench(self) -> Bench:
        return Bench.open(self.family, self.source, self.seed)

    @cached_property
    def choosing(self) -> list[Batch]:
        """What a rate is chosen on: the validation rows, and training rows of the data that were not drawn."""
        rows, size = load(self.spare, seed=self.seed).evaluation, self.recipe.batch_size
        rows = sorted(rows, key=lambda row: len(row.get("text", "")))  # less padding
        spare = [self.bench.collator(rows[i : i + size]) for i in range(0, len(rows), size)]
        return [*self.bench.validation, *spare]

    @cached_property
    def everywhere(self) -> Plan:
        """LoRA r = 8 everywhere, as long as the bench trains."""
        plan = uniform_plan(self.source, self.family.backbone, 8, recipe=self.recipe, seed=self.seed)
        return replace(plan, data=replace(plan.data, train_rows=len(self.bench.train_rows)))

    @cached_property
    def step_spec(self) -> StepSpec:
        return step_spec_of(self.bench, self.source)

    @property
    def at_random(self) -> list[float]:
        """An importance that knows nothing, for the same scheduler."""
        return np.random.default_rng(self.seed).gamma(1.5, 1.0, len(self.bench.names)).tolist()

    @cached_property
    def sensitive(self) -> list[float]:
        """SPT's importance: the squared gradients of the new task itself."""
        probe, model, head = self.bench.probe(), self.bench.model, self.bench.head
        with frozen(model):
            x = torch.cat([example_features(model, head, unlabelled(batch)) for batch in probe])
            labels = torch.cat([batch["labels"] for batch in probe])
            return list(spt(self.bench, probe, directions(self.bench, x, labels)["soft"]))

    @cached_property
    def ablated(self) -> list[float]:
        """What the test rows lose without each module of a LoRA everywhere; no plan can know it."""
        folder = self.scratch / "everywhere"
        learn(self.bench, folder, print)
        ablate(self.bench, folder, self.bench.test, print)
        drops = ablation_drops(np.load(folder / "truth.npz"))["loss"].mean(1)
        return np.maximum(drops, LEAST).tolist()

    def known(self, most: int | None = None) -> Path:
        """The zoo without the task itself, all of it or ``most`` learned tasks."""
        return zoo_without(self.zoo, self.task, most, self.seed, self.scratch / f"zoo-{most}")

    def context(self, way: str, variant: str | None) -> PlanningContext:
        if (way, variant) not in self.contexts:
            kind, _, value = (variant or "").partition("-")
            most = int(value) if kind == "learned" else None
            choices = {kind: value} if variant and kind != "learned" else {}
            known, seed = self.known(most), self.seed
            free = {"gradient_checkpointing": None, "micro_batch": None, "gradient_accumulation": None}
            recipe = self.recipe if way == KEEPING else replace(self.recipe, **free)
            self.contexts[way, variant] = prepare(
                self.source, self.family.backbone, zoo=known, recipe=recipe, seed=seed, **choices
            )
        return self.contexts[way, variant]

    def planned(self, share: int, way: str, variant: str | None) -> Training:
        """What the product plans."""
        plan = decide(self.context(way, variant), parse_budget(f"{share}%"))
        ranks = tuple(plan.ranks.get(name, 0) for name in self.bench.names)
        step = {"peak_bytes": plan.memory.peak_bytes, "micro_batch": plan.training.micro_batch}
        return Training(ranks, bool(plan.training.gradient_checkpointing), step)

    def ranks(self, way: str, share: int) -> Ranks | None:
        """The ranks of a way that the product does not plan, within the budget; None where not one block fits."""
        if way.endswith(CHECKPOINTING):
            return self.recomputed(way, share)
        if way in IMPORTANCES:
            importance = getattr(self, IMPORTANCES[way])
            return strategies(self.step_spec, {way: importance}, share, others=False)[way]
        if share not in self.fitting:
            self.fitting[share] = strategies(self.step_spec, {}, share)
        found = self.fitting[share].get("last-blocks" if way.startswith("last-blocks") else "uniform")
        return tuple(min(rank, 8) for rank in found) if found and way == "last-blocks-r8" else found

    def recomputed(self, way: str, share: int) -> Ranks:
        """Uniform ranks, or those of a random importance, that fit the budget where blocks are recomputed."""
        step_spec = self.step_spec.checkpointing(True)
        pricing = price(step_spec)
        profile, ones = pricing.profile, (1.0,) * len(step_spec.locations)
        uniform = way.startswith("uniform")
        solve = partial(schedule_uniform, profile, ones) if uniform else partial(schedule, profile, self.at_random)
        low, floor = pricing.no_update_bytes, profile.bytes((0,) * len(ones))
        limit = parse_budget(f"{share}%").resolve(low, pricing.full_lora_bytes)
        return search(lambda found: step_spec.rehearse(found.ranks), solve, limit, floor)[0].ranks

    def directed(self, model: Any) -> None:
        """EVA's start, on the training rows."""

        def batches() -> Iterator[Mapping[str, Any]]:
            size, rows = self.recipe.batch_size, self.bench.train_rows
            return (self.bench.collator(rows[i : i + size]) for i in range(0, len(rows), size))

        nothing = lambda *_: None  # noqa: E731
        draw: Any = nothing
        one = self.everywhere
        Directed().prepare(
            Preparation(
                one.backbone,
                one.data,
                one.ranks,
                one.seed,
                one.training.epochs,
                model,
                batches,
                nothing,
                draw,
                nothing,
            )
        )

    def training(self, way: str, share: int | None, variant: str | None) -> Training | None:
        """How ``way`` trains; None where its budget admits nothing that deserves the name."""
        if way == "adalora":
            make = lambda model, heads: adalora(model, self.everywhere, heads)  # noqa: E731
            return Training((), make=make, allocating=True)
        if way == "full":
            make = lambda model, heads: everything(model, self.everywhere, heads)  # noqa: E731
            return Training((), make=make, rates=FULL_RATES, divisor=SOFTENED)
        if way == "everywhere" or share is None:
            return Training((8,) * len(self.bench.names))
        if way in ("taskit", KEEPING):
            return self.planned(share, way, variant)
        ranks = self.ranks(way, share)
        started = self.directed if way == "eva" and ranks and any(ranks) else as_it_is
        return ranks and Training(ranks, way.endswith(CHECKPOINTING), started=started)


def cell(task: Task, way: str, share: int | None, variant: str | None, rate: float | None) -> Row:
    """Accuracy of one way at ``rate``, or at each of its rates, on the rows that choose and on the test rows."""
    bench = task.bench
    row: Row = {"head": accuracy(bench.model, bench.test), "peak_bytes": None}  # of what is no plain LoRA
    if way == "head":
        return row | {"test": row["head"]} | bytes_of(task, Training((0,) * len(bench.names)))
    if way == "zero-ft":
        return row | zero_ft(task)
    training = task.training(way, share, variant)
    if training is None:
        return row | {"refused": "not one block with a LoRA of rank 8 fits the budget"}
    if training.make is None:
        row |= bytes_of(task, training)
    learns = training.make is not None or any(training.ranks)  # a rate of the head alone is none of a LoRA
    rates = [rate] if rate else training.rates if learns else training.rates[:1]
    return row | {"tried": [trained_once(task, training, one) for one in rates]}


def bytes_of(task: Task, training: Training) -> Row:
    step_spec, ranks = task.step_spec.checkpointing(training.recomputes), training.ranks
    row: Row = training.planned or {"peak_bytes": step_spec.rehearse(ranks)}
    row = {"ranks": ranks, "recomputes": training.recomputes} | row
    return row | {"trainable_parameters": step_spec.trainable_parameters(ranks)}


def tested(task: Task, training: Training, rate: float) -> Row:
    """Accuracy on the rows that choose and on the test rows after training at ``rate``."""
    bench = task.bench
    named = {name: rank for name, rank in zip(bench.names, training.ranks, strict=False) if rank}
    with allocated(training) as started:
        model = bench.train(named, lr=rate / training.divisor, make=training.make, started=started)
    found = {"validation": accuracy(model, task.choosing), "test": accuracy(model, bench.test)}
    return {"learning_rate": rate} | found


def trained_once(task: Task, training: Training, rate: float) -> Row:
    """`tested`, but a plan that an earlier cell of the task has trained is not trained again."""
    if training.make or training.allocating or training.started is not as_it_is:
        return tested(task, training, rate)
    key = training.ranks, rate / training.divisor
    if key not in task.trained:
        task.trained[key] = tested(task, training, rate)
    return task.trained[key]


@contextmanager
def allocated(training: Training) -> Iterator[Callable[[Any], None]]:
    """What to call with the model before its first step; AdaLoRA's own step follows each of the optimizer's."""
    hooks: list[Any] = []

    def started(model: Any) -> None:
        training.started(model)
        if training.allocating:
            hooks.append(register_optimizer_step_post_hook(Allocating(model, trying=0)))

    yield started
    for hook in hooks:
        hook.remove()


def zero_ft(task: Task) -> Row:
    """AdapterSoup by the product: learned adapters averaged, nothing trained but the head."""
    plan = make_plan(
        task.source, task.family.backbone, "100%", zoo=task.known(), recipe=task.recipe, method="soup", seed=task.seed
    )
    result = train(plan, task.scratch / "soup")
    return {"test": result.after, "peak_bytes": plan.memory.peak_bytes, "trainable_parameters": 0}
