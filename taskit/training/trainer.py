"""A run from top to bottom: train exactly what a plan says, and leave a run folder with a plain PEFT adapter in it.

`train` reads the data, prices the plan again and takes the run folder.  `TrainingRun.run` loads the backbone, fits
the linear head, inserts the LoRA, prepares the method, trains (`taskit.training.loop`), evaluates and exports.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from taskit.backbone.heads import final_linear, head_names, trained_head
from taskit.backbone.loading import load_model
from taskit.backbone.processors import make_collator
from taskit.data import Collator, Dataset
from taskit.errors import BudgetError
from taskit.memory.live import standing_tensors
from taskit.methods import parametrization_of
from taskit.planning.plan import Plan
from taskit.planning.recipe import Recipe
from taskit.planning.repricing import reprice
from taskit.step.lora import adapt
from taskit.step.parametrization import PLAIN, Parametrization, Preparation
from taskit.training.batches import Batches, load_data
from taskit.training.checkpoint import Progress, find_checkpoints, require_device
from taskit.training.distributed import require_processes, shard_backbone
from taskit.training.dry_run import MisfitError, require_fit, tightened
from taskit.training.evaluation import evaluate, metric_of
from taskit.training.export import write_adapter
from taskit.training.generation import with_answers
from taskit.training.linear_head import fit_linear_head, scale_logits
from taskit.training.loop import TrainingLoop
from taskit.training.ownership import Interrupts, owning
from taskit.training.peak import PeakMeter, cap_allocator
from taskit.training.preparation import prepare_once
from taskit.training.results import Result, Scores, step_of
from taskit.training.run_folder import Event, RunFolder, Watch, stamped
from taskit.training.tracking import Tracker, make_accelerator, track, tracked
from taskit.transfer.embedding import embed_rows
from taskit.transfer.ridge_head import SOFTENED


def train(
    plan: Plan,
    out: str | Path,
    *,
    resume: bool = False,
    tighten: bool = False,
    tracker: Tracker | None = None,
    watch: Watch = lambda _: None,
) -> Result:
    """Train ``plan`` into the run folder ``out``; ``watch`` sees every event as it happens.

    The best epoch by a validation tenth of the training rows is kept.  With ``resume`` the run in ``out``, queued
    or stopped, goes on by its own plan from its last checkpoint and ends as it would have without the stop.  With
    ``tighten`` a plan that does not fit is trained in smaller micro-batches instead of being refused.

    Under ``accelerate launch`` or ``torchrun`` every process calls this; only the first one writes.

    Raises:
        RunError: the folder is taken or in use, or the data is no longer what the plan was made for.
        BudgetError: the plan's ranks, perhaps edited, or its longest batch need more than its budget.
    """
    folder = RunFolder(out)
    if resume:
        plan = _plan_to_resume(folder)
    accelerator = make_accelerator(tracker, folder.path, plan.training.shards)
    require_processes(plan, accelerator)
    loaded = None if resume else _load_and_reprice(plan, tighten)  # first, so that bad input makes no folder
    if not resume and accelerator.is_main_process:
        folder.reserve()
    accelerator.wait_for_everyone()
    interrupts = Interrupts()
    with owning(folder, accelerator.is_main_process), interrupts.listening():
        run = TrainingRun(*(loaded or _load_and_reprice(plan, tighten)), accelerator, folder, watch, interrupts)
        return _train_within_budget(run, tighten)


def _plan_to_resume(folder: RunFolder) -> Plan:
    plan = Plan.from_dict(folder.read_json("plan.json"), str(folder.path / "plan.json"))
    if folder.exists():
        folder.read_state()  # refused where another version made it
    require_device(folder.checkpoints)
    return plan


def _load_and_reprice(plan: Plan, tighten: bool) -> tuple[Plan, Dataset, Collator]:
    """The plan with its price checked, and what it is trained on."""
    collator = make_collator(plan.backbone, plan.data.task, plan.training.max_length)
    data = load_data(plan).learnable(collator)
    while True:
        try:
            return reprice(plan, data, collator), data, collator
        except BudgetError:
            if not tighten:
                raise
            plan = tightened(plan)


def _train_within_budget(run: "TrainingRun", tighten: bool) -> Result:
    """Train; with ``tighten`` again in smaller micro-batches for as long as the longest batch does not fit."""
    while True:
        if run.accelerator.is_main_process:
            run.folder.write_json("plan.json", run.plan.to_dict())
        try:
            with tracked(run.accelerator, run.plan):
                return run.run()
        except MisfitError:
            if not tighten:
                raise
        run = replace(run, plan=reprice(tightened(run.plan), run.data, run.collator))


@dataclass
class TrainingRun:
    """One run under way, in a folder that this process owns."""

    plan: Plan
    data: Dataset
    collator: Collator
    accelerator: Accelerator
    folder: RunFolder
    watch: Watch
    interrupts: Interrupts

    def __post_init__(self) -> None:
        self.train_rows, self.validation_rows = self.data.validated(self.plan.seed)
        self.batches = Batches(self.collator, self.plan.training, self.accelerator, self.plan.seed)
        self.meter = PeakMeter(self.accelerator.device, shared=self.plan.training.shards > 1)

    def run(self) -> Result:
        """The whole run, from the backbone's weights to the exported adapter."""
        plan, task = self.plan, self.plan.data.task
        set_seed(plan.seed)
        cap_allocator(self.accelerator.device, plan.budget_bytes)
        model = self._load_backbone()
        embedding = self.embed(model)
        # a checkpoint holds the head, and the score that came before
        before = None if find_checkpoints(self.folder.checkpoints) else self.score_before(model)
        parametrization = parametrization_of(plan.method, plan.method_options) if any(plan.ranks.values()) else PLAIN
        adapted = adapt(model, plan.ranks, head_names(model, task), task, parametrization)
        if parametrization.trains:
            self._prepare_method(parametrization, adapted)
            recipe = replace(plan.training, epochs=parametrization.epochs(plan.training.epochs))
            progress = self.loop(adapted, recipe, self.folder.checkpoints, self.record).run(before)
        else:
            assert before is not None  # no checkpoint holds it
            progress = self._compose(parametrization, adapted, before)
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        discarded = parametrization.collapse(adapted)
        peak = self.meter.peak_of_all(self.accelerator)
        return self.finish(adapted, progress, peak, embedding, trained, discarded)

    def _load_backbone(self) -> Any:
        """The frozen model on this process's device, or its share of it."""
        task, labels, backbone = self.plan.data.task, self.plan.data.labels, self.plan.backbone
        if self.plan.training.shards == 1:
            with self.meter:
                model = load_model(backbone, task=task, labels=labels, device=self.accelerator.device)
        else:
            model = load_model(backbone, task=task, labels=labels)  # the whole of it: on no device
            shard_backbone(model, head_names(model, task), self.accelerator)
        self.meter.follow(standing_tensors(model))
        return model

    def embed(self, model: Any) -> tuple[float, ...]:
        """What the training rows look like to ``model``, which has no adapter yet."""
        return embed_rows(model, self.data.train, self.collator, self.batches.at_once, self.plan.seed)

    def score_before(self, model: Any) -> Scores:
        """The score without any adapter: for a classifier, with the best linear head on frozen features.

        Training goes on from that head, its logits scaled down: it predicts the same, but no longer explains
        the training rows so well that the LoRA is left with next to no gradient.
        """
        if not self.plan.data.labels:
            return self.evaluate(model)
        head = final_linear(model)
        self._fit_linear_head(model, head, "frozen")
        before = self.evaluate(model)
        scale_logits(head, SOFTENED)
        self.record(Event("note", f"accuracy with the linear head only: {before.value:.4f}", metric=before.value))
        return before

    def _fit_linear_head(self, model: Any, head: torch.nn.Linear, features: str) -> None:
        self.record(Event("note", f"fitting a linear head on the {features} features"))
        fit_linear_head(model, head, *map(self.batches.unshared, (self.train_rows, self.validation_rows)))

    def _prepare_method(self, parametrization: Parametrization, adapted: Any) -> None:
        """The method's own start, once: a resumed run brings back what is kept of it."""
        preparation = Preparation(
            backbone=self.plan.backbone,
            data=self.plan.data,
            ranks=self.plan.ranks,
            seed=self.plan.seed,
            epochs=self.plan.training.epochs,
            model=adapted,
            batches=partial(self.batches.unshared, self.train_rows),
            warm_up=partial(self._warm_up, adapted),
            draw=partial(self.batches.sample, self.train_rows),
            on_progress=lambda message: self.record(Event("note", message)),
        )
        prepare_once(parametrization, preparation, self.folder, self.accelerator)

    def _warm_up(self, adapted: Any, epochs: int) -> None:
        """A short training before the epochs, whose checkpoints lie beside those of the run."""

        def record(event: Event) -> None:
            if event.kind == "epoch":
                self.record(Event("note", f"warm-up: epoch {event.epoch} of {epochs} done", metric=event.metric))

        recipe = replace(self.plan.training, epochs=epochs, patience=None)
        self.loop(adapted, recipe, self.folder.warm_up, record).run(Scores(0.0))

    def loop(self, model: Any, recipe: Recipe, checkpoints: Path, on_event: Watch) -> TrainingLoop:
        """The epochs of ``recipe``, on this run's rows, with checkpoints in a folder of their own."""
        return TrainingLoop(
            plan=replace(self.plan, training=recipe),
            model=model,
            batches=self.batches,
            train_rows=self.train_rows,
            validation_rows=self.validation_rows,
            accelerator=self.accelerator,
            folder=self.folder,
            checkpoint_folder=checkpoints,
            on_event=on_event,
            meter=self.meter,
            interrupts=self.interrupts,
        )

    def _compose(self, parametrization: Parametrization, adapted: Any, before: Scores) -> Progress:
        """All that a method does which trains nothing: its preparation, measured as training would be, and the same
        linear head that a run begins with, here on the composed features."""
        started = time.perf_counter()
        with self.meter:
            self._prepare_method(parametrization, adapted)
            with torch.no_grad():
                adapted.eval()(**self.batches.longest(self.data.train)())
        require_fit(self.plan, self.meter.peak[0])
        head = trained_head(adapted)
        if head is not None:
            self._fit_linear_head(adapted, head, "composed")
        seconds = time.perf_counter() - started
        return Progress(0, 0, 0, before.value, before, self.accelerator.device.type, seconds)

    def evaluate(self, model: Any) -> Scores:
        """Scores on the evaluation rows, with generated answers where text is written."""
        rows, gather = self.data.evaluation, self.accelerator.gather_for_metrics
        scores = evaluate(model, self.batches.once(rows), self.plan.data.task, gather)
        return scores if self.plan.data.labels else with_answers(scores, model.eval(), self.collator, rows)

    def finish(
        self,
        adapted: Any,
        progress: Progress,
        peak: int,
        embedding: Sequence[float],
        trained: int,
        discarded: float = 0.0,
    ) -> Result:
        """Evaluate the plain PEFT model, and write adapter and result; ``peak`` is in bytes."""
        after = self.evaluate(adapted)
        result = Result(
            metric=metric_of(self.plan.data.task),
            before=progress.before.value,
            after=after.value,
            predicted_peak_bytes=self.plan.memory.peak_bytes,
            measured_peak_bytes=peak,
            measured_with=self.meter.peak[1],
            train_seconds=round(progress.seconds, 2),
            steps=progress.step,
            trainable_parameters=trained,
            best_epoch=progress.best_epoch,
            processes=self.accelerator.num_processes,
            imbalance=self.data.report.imbalance,
            details_before=progress.before,
            details_after=after,
            discarded_energy=discarded,
            **step_of(self.plan.training),
        )
        if self.accelerator.is_main_process:
            write_adapter(adapted, self.plan, result, embedding, self.folder.adapter)
            self.record(Event("done", step=result.steps, metric=result.after))
            self.folder.write_json("result.json", asdict(result))
        return result

    def record(self, event: Event) -> None:
        """Write an event to the run folder and the tracker, and show it to ``watch``; in the main process only."""
        if self.accelerator.is_main_process:
            event = stamped(event)
            self.folder.append(event)
            track(self.accelerator, event)
            self.watch(event)
