"""Train several tasks together, and leave a finished run folder of each under one parent.

The parent is a run folder of its own: its events, checkpoints and state are those of the joint training, so that it
is watched, stopped and resumed like any other.  What each task ships lies in a folder by its name.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, cycle, islice, repeat
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from taskit.backbone.loading import empty_model, load_model
from taskit.backbone.processors import make_collator
from taskit.data import Dataset
from taskit.errors import RunError
from taskit.memory.live import standing_tensors
from taskit.step.loss import row_losses
from taskit.step.targets import target_count
from taskit.together.plan import JointPlan
from taskit.together.tglora import JointModel, join, joint_loss, share_backbone, together
from taskit.together.tree_picture import draw_tree
from taskit.training.batches import Batch, Batches, load_data
from taskit.training.checkpoint import find_checkpoints, require_device
from taskit.training.evaluation import evaluate
from taskit.training.loop import TrainingLoop
from taskit.training.ownership import Interrupts, owning
from taskit.training.peak import PeakMeter, cap_allocator
from taskit.training.results import Result, Scores
from taskit.training.run_folder import Event, RunFolder, Watch, stamped
from taskit.training.runs import JOINT_PLAN, Run, launch
from taskit.training.tracking import make_accelerator
from taskit.training.trainer import TrainingRun

BEFORE = "before.json"


def train_together(
    plan: JointPlan, out: str | Path, *, resume: bool = False, watch: Watch = lambda _: None
) -> tuple[Result, ...]:
    """Train ``plan`` into the folder ``out``; the results are by task.

    The epoch with the best mean of the tasks' validation metrics is kept, for all tasks the same one: what they share
    stays shared.  With ``resume`` the training in ``out`` goes on by its own plan from its last checkpoint.

    Raises:
        RunError: the folder is taken or in use, or a dataset is no longer what the plan was made for.
        BudgetError: the longest batches need more than the budget.
    """
    folder = RunFolder(out)
    if resume:
        plan = JointPlan.load(folder.path / JOINT_PLAN)
        require_device(folder.checkpoints)
    data = [load_data(one) for one in plan.plans]
    accelerator = make_accelerator(None, folder.path)
    if accelerator.num_processes > 1:
        raise RunError("Several datasets are trained together by one process; start it without accelerate launch.")
    if not resume:
        _reserve(plan, folder)
    interrupts = Interrupts()
    with owning(folder, True), interrupts.listening():
        return JointRun(plan, data, accelerator, folder, watch, interrupts).run()


def start_together(plan: JointPlan, out: str | Path) -> Run:
    """Train ``plan`` into ``out`` in a process of its own, which outlives this one.

    Raises:
        RunError: the folder is taken or cannot be written.
    """
    folder = RunFolder(out)
    _reserve(plan, folder)
    launch(folder)
    return Run(out)


def _reserve(plan: JointPlan, folder: RunFolder) -> None:
    folder.reserve()
    folder.write_json(JOINT_PLAN, plan.to_dict())
    folder.write_json("plan.json", plan.plans[0].to_dict())  # its ranks, budget and peak are those of all
    (folder.path / "tree.svg").write_text(draw_tree(plan.tree), encoding="utf-8")


@dataclass
class JointRun:
    """One joint training under way."""

    plan: JointPlan
    data: Sequence[Dataset]
    accelerator: Accelerator
    folder: RunFolder
    watch: Watch
    interrupts: Interrupts

    def __post_init__(self) -> None:
        self.tasks = [self._task(*one) for one in zip(self.plan.tree.tasks, self.plan.plans, self.data, strict=True)]
        self.meter = PeakMeter(self.accelerator.device)

    def _task(self, name: str, plan: Any, data: Dataset) -> TrainingRun:
        folder = RunFolder(self.folder.path / name)
        folder.path.mkdir(exist_ok=True)
        folder.write_json("plan.json", plan.to_dict())
        collator = make_collator(plan.backbone, plan.data.task, plan.training.max_length)
        data = data.learnable(collator)
        return TrainingRun(plan, data, collator, self.accelerator, folder, lambda _: None, self.interrupts)

    def run(self) -> tuple[Result, ...]:
        first = self.plan.plans[0]
        set_seed(first.seed)
        cap_allocator(self.accelerator.device, first.budget_bytes)
        models = self._models()
        embeddings = [task.embed(model) for task, model in zip(self.tasks, models, strict=True)]
        befores = self._befores(models)
        set_seed(first.seed)  # each task's LoRA starts as if it were trained alone
        joint = join(models, first.ranks, self.plan.tree, first.data.task)
        progress = self._loop(joint).run(_mean(befores))
        results = []
        for task, model, before, embedding in zip(self.tasks, joint.models, befores, embeddings, strict=True):
            peak = self.meter.peak_of_all(self.accelerator)
            scored = replace(progress, before=before)
            results.append(task.finish(model, scored, peak, embedding, _trained_count(model)))
            task.folder.set_state("done")
        self._finish(results, _trained_count(joint))
        return tuple(results)

    def _loop(self, joint: JointModel) -> "JointLoop":
        """The epochs of all tasks, with one batch of each in a step."""
        each = tuple(task.batches for task in self.tasks)
        return JointLoop(
            plan=self.plan.plans[0],
            model=joint,
            batches=JointBatches(each),
            train_rows=[task.train_rows for task in self.tasks],
            validation_rows=[task.validation_rows for task in self.tasks],
            accelerator=self.accelerator,
            folder=self.folder,
            checkpoint_folder=self.folder.checkpoints,
            on_event=self._record,
            meter=self.meter,
            interrupts=self.interrupts,
        )

    def _models(self) -> list[Any]:
        """A model for each task, over weights that are loaded once."""
        first, *others = self.plan.plans
        task, device = first.data.task, self.accelerator.device
        twins = [empty_model(one.backbone, task=task, labels=one.data.labels) for one in others]
        with self.meter:
            model = load_model(first.backbone, task=task, labels=first.data.labels, device=device)
            self.meter.follow(standing_tensors(model))
            share_backbone(model, twins, task)
        return [model, *twins]

    def _befores(self, models: Sequence[Any]) -> list[Scores]:
        """The scores without an adapter; the heads that go with them start the training, or are in its checkpoint."""
        if find_checkpoints(self.folder.checkpoints):
            return [Scores.from_dict(one) for one in self.folder.read_json(BEFORE)["scores"]]
        befores = []
        for name, task, model in zip(self.plan.tree.tasks, self.tasks, models, strict=True):
            before = task.score_before(model)
            self._record(Event("note", f"{name} without an adapter: {before.value:.4f}", metric=before.value))
            befores.append(before)
        self.folder.write_json(BEFORE, {"scores": [json.loads(json.dumps(asdict(one))) for one in befores]})
        return befores

    def _finish(self, results: Sequence[Result], trained: int) -> None:
        mean = replace(
            results[0],
            before=sum(one.before for one in results) / len(results),
            after=sum(one.after for one in results) / len(results),
            trainable_parameters=trained,
            imbalance=None,
            details_before=None,
            details_after=None,
        )
        self._record(Event("done", step=mean.steps, metric=mean.after))
        self.folder.write_json("result.json", asdict(mean))

    def _record(self, event: Event) -> None:
        event = stamped(event)
        self.folder.append(event)
        self.watch(event)


@dataclass(frozen=True, slots=True)
class JointBatches:
    """A batch of each task in every step, as `Batches` are for one task; rows are lists, one of each task."""

    each: tuple[Batches, ...]

    def steps(self, rows: Sequence[Any], epoch: int, skip: int = 0) -> Iterator[list[Batch]]:
        """An epoch is one of the task with the most batches; the others start anew meanwhile."""
        endless = [_endless(*one, epoch) for one in zip(self.each, rows, strict=True)]
        for steps in islice(zip(*endless, strict=True), skip, self.steps_per_epoch(rows)):
            yield [batch for task, step in enumerate(steps) for batch in together(step, repeat(task))]

    def steps_per_epoch(self, rows: Sequence[Any]) -> int:
        return max(batches.steps_per_epoch(one) for batches, one in zip(self.each, rows, strict=True))

    def longest(self, rows: Sequence[Any]) -> Callable[[], Batch]:
        """Makes the largest batch of one task after the other, anew at every call."""
        makers = [batches.longest(one) for batches, one in zip(self.each, rows, strict=True)]
        turns = cycle(enumerate(makers))

        def make() -> Batch:
            task, maker = next(turns)
            (marked,) = together([maker()], [task])
            return marked

        return make


class JointLoop(TrainingLoop):
    """The training loop over a `JointModel`."""

    def loss(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """The mean loss of a micro-batch of one task."""
        return joint_loss(self.model, batch, self.recipe.loss_chunk)

    def loss_shares(self, micro_batches: list[Batch]) -> list[float]:
        """The sum of the tasks' losses: a tied pair gets the sum of their gradients."""
        counts = [target_count(batch, self.model.config.is_encoder_decoder) for batch in micro_batches]
        tasks: list[Any] = [batch["task"] for batch in micro_batches]
        whole = [sum(n for n, other in zip(counts, tasks, strict=True) if other == task) for task in tasks]
        return [count / max(total, 1) for count, total in zip(counts, whole, strict=True)]

    @property
    def accumulation(self) -> int:
        """One micro-batch of each task, which passes whole."""
        return len(self.model.models)

    @property
    def passes(self) -> int:
        return self.accumulation

    def evaluate_longest(self, batch: Mapping[str, Any]) -> None:
        """The forward pass that an evaluation of one task takes."""
        task: Any = batch["task"]
        inputs = {name: value for name, value in batch.items() if name != "task"}
        if self.metric == "loss":
            row_losses(self.model.models[task], inputs, self.recipe.loss_chunk)
        else:
            self.model(**batch)

    def validate(self) -> float:
        """The mean of the tasks' metrics."""
        found = []
        for model, batches, rows in zip(self.model.models, self.batches.each, self.validation_rows, strict=True):
            found.append(evaluate(model, batches.once(rows), self.task, self.accelerator.gather_for_metrics).value)
        return sum(found) / len(found)


def _trained_count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _endless(batches: Batches, rows: Any, epoch: int) -> Iterator[list[Batch]]:
    """The steps of an epoch in their order, then those of later ones, in orders of their own."""
    for lap in count():
        yield from batches.steps(rows, epoch + lap * batches.recipe.epochs)


def _mean(scores: Sequence[Scores]) -> Scores:
    return Scores(sum(one.value for one in scores) / len(scores))
