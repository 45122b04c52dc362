"""One run under way: load, adapt, prepare, fit, score, export."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from taskit.backbone.heads import final_linear, head_names, trained_head
from taskit.backbone.loading import load_model
from taskit.data import Collator, Dataset
from taskit.data.rows import split
from taskit.memory.live import standing_tensors
from taskit.methods import parametrization_of
from taskit.planning.plan import Plan
from taskit.step.lora import adapt
from taskit.step.parametrization import PLAIN, Parametrization, Preparation
from taskit.training.batches import Batches
from taskit.training.checkpoint import Progress, find_checkpoints
from taskit.training.evaluation import evaluate, metric_of
from taskit.training.export import write_adapter
from taskit.training.fit_first import require_fit
from taskit.training.fitting import Fitting
from taskit.training.generation import answer_hardest, compare_answers
from taskit.training.interrupt import Interrupts
from taskit.training.peak import PeakMeter, cap_allocator
from taskit.training.preparing import make_ready, warm_up_folder
from taskit.training.probe_head import fit_linear_head
from taskit.training.run_folder import Event, Result, RunFolder, Watch, stamped
from taskit.training.scores import Scores
from taskit.training.sharding import share_out
from taskit.training.tracking import track
from taskit.transfer.embedding import embed_rows
from taskit.transfer.ridge_head import SOFTENED

VALIDATION = 0.1  # of the training rows: chooses the epoch, so that the evaluation rows choose nothing


@dataclass
class Training:
    """One run under way."""

    plan: Plan
    data: Dataset
    collator: Collator
    accelerator: Accelerator
    folder: RunFolder
    watch: Watch
    interrupts: Interrupts

    def __post_init__(self) -> None:
        strata = self.data.train["label"] if self.plan.data.labels else [0] * len(self.data.train)
        kept, held_out = split(strata, VALIDATION, self.plan.seed)
        self.train_rows, self.validation_rows = self.data.train.select(kept), self.data.train.select(held_out)
        self.batches = Batches(self.collator, self.plan.training, self.accelerator, self.plan.seed)
        self.meter = PeakMeter(self.accelerator.device, shared=self.plan.training.shards > 1)

    def run(self) -> Result:
        task = self.plan.data.task
        set_seed(self.plan.seed)
        cap_allocator(self.accelerator.device, self.plan.budget_bytes)
        model = self._load()
        embedding = self.embed(model)
        # a checkpoint holds the head, and the score that came before
        before = None if find_checkpoints(self.folder.checkpoints) else self.before(model)
        parametrization = parametrization_of(self.plan) if any(self.plan.ranks.values()) else PLAIN
        adapted = adapt(model, self.plan.ranks, head_names(model, task), task, parametrization)
        if parametrization.trains:
            self._make_ready(parametrization, adapted)
        recipe = replace(self.plan.training, epochs=parametrization.epochs(self.plan.training.epochs))
        fitting = self._fitting(adapted, replace(self.plan, training=recipe), self.folder, self._emit)
        if parametrization.trains:
            progress = fitting.fit(before)
        else:
            assert before is not None  # no checkpoint holds it
            progress = self._compose(parametrization, adapted, before)
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        discarded = parametrization.collapse(adapted)
        return self.finish(adapted, progress, fitting.peak(), embedding, trained, discarded)

    def _load(self) -> Any:
        """The frozen model on this process's device, or its share of it."""
        task, labels, backbone = self.plan.data.task, self.plan.data.labels, self.plan.backbone
        if self.plan.training.shards == 1:
            with self.meter:
                model = load_model(backbone, task=task, labels=labels, device=self.accelerator.device)
        else:
            model = load_model(backbone, task=task, labels=labels)  # the whole of it: on no device
            share_out(model, head_names(model, task), self.accelerator)
        self.meter.follow(standing_tensors(model))
        return model

    def finish(
        self,
        adapted: Any,
        progress: Progress,
        peak: int,
        embedding: Sequence[float],
        trained: int,
        discarded: float = 0.0,
    ) -> Result:
        """Score the plain PEFT model that has come of it, and write adapter and result; ``peak`` is in bytes."""
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
        )
        if self.accelerator.is_main_process:
            write_adapter(adapted, self.plan, result, embedding, self.folder.adapter)
            self._emit(Event("done", step=result.steps, metric=result.after))
            self.folder.write_json("result.json", asdict(result))
        return result

    def embed(self, model: Any) -> tuple[float, ...]:
        """What the training rows look like to ``model``, which has no adapter yet."""
        return embed_rows(model, self.data.train, self.collator, self.plan.training.batch_size, self.plan.seed)

    def _fitting(self, adapted: Any, plan: Plan, folder: RunFolder, emit: Watch) -> Fitting:
        return Fitting(
            plan=plan,
            model=adapted,
            batches=self.batches,
            train_rows=self.train_rows,
            validation_rows=self.validation_rows,
            accelerator=self.accelerator,
            folder=folder,
            emit=emit,
            meter=self.meter,
            interrupts=self.interrupts,
        )

    def _compose(self, parametrization: Parametrization, adapted: Any, before: Scores) -> Progress:
        """All that a method does which trains nothing: its preparation, measured as training would be, and the same
        linear head that a run begins with, here on the composed features."""
        started = time.perf_counter()
        with self.meter:
            self._make_ready(parametrization, adapted)
            with torch.no_grad():
                adapted.eval()(**self.batches.longest(self.data.train)())
        require_fit(self.plan, self.meter.peak[0])
        head = trained_head(adapted)
        if head is not None:
            self._emit(Event("note", "fitting a linear head on the composed features"))
            fit_linear_head(adapted, head, *map(self.batches.unshared, (self.train_rows, self.validation_rows)))
        seconds = time.perf_counter() - started
        return Progress(0, 0, 0, before.value, before, self.accelerator.device.type, seconds)

    def _make_ready(self, parametrization: Parametrization, adapted: Any) -> None:
        preparation = Preparation(
            plan=self.plan,
            model=adapted,
            batches=partial(self.batches.unshared, self.train_rows),
            warm_up=partial(self._warm_up, adapted),
            draw=self._draw,
            on_progress=lambda message: self._emit(Event("note", message)),
        )
        process = self.accelerator
        make_ready(parametrization, preparation, self.folder.path, process.is_main_process, process.wait_for_everyone)

    def _draw(self, count: int) -> Iterator[dict[str, torch.Tensor]]:
        rows = self.train_rows.shuffle(seed=self.plan.seed)
        return self.batches.unshared(rows.select(range(min(count, len(rows)))))

    def _warm_up(self, adapted: Any, epochs: int) -> None:
        """A short training of its own, whose checkpoints lie beside those of the run."""

        def emit(event: Event) -> None:
            if event.kind == "epoch":
                self._emit(Event("note", f"warm-up: epoch {event.epoch} of {epochs} done", metric=event.metric))

        folder = RunFolder(self.folder.path)
        folder.checkpoints = warm_up_folder(folder.path)
        recipe = replace(self.plan.training, epochs=epochs, patience=None)
        self._fitting(adapted, replace(self.plan, training=recipe), folder, emit).fit(Scores(0.0))

    def _emit(self, event: Event) -> None:
        if self.accelerator.is_main_process:
            event = stamped(event)
            self.folder.append(event)
            track(self.accelerator, event)
            self.watch(event)

    def before(self, model: Any) -> Scores:
        """The score without any adapter: for a classifier, with the best linear head on frozen features.

        Training goes on from that head, its logits scaled down: it predicts the same, but no longer explains
        the training rows so well that the LoRA is left with next to no gradient.
        """
        if not self.plan.data.labels:
            return self.evaluate(model)
        self._emit(Event("note", "fitting a linear head on the frozen features"))
        head = final_linear(model)
        fit_linear_head(model, head, *map(self.batches.unshared, (self.train_rows, self.validation_rows)))
        before = self.evaluate(model)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.mul_(SOFTENED)
        self._emit(Event("note", f"accuracy with the linear head alone: {before.value:.4f}", metric=before.value))
        return before

    def evaluate(self, model: Any) -> Scores:
        batches = self.batches.once(self.data.evaluation)
        scores = evaluate(model, batches, self.plan.data.task, self.accelerator.gather_for_metrics)
        if self.plan.data.labels:
            return scores
        model.eval()
        rows = self.data.evaluation
        scores = replace(scores, hardest=answer_hardest(model, self.collator, rows, scores.hardest))
        compared = compare_answers(model, self.collator, rows)
        return replace(scores, exact_match=compared[0], rouge_l=compared[1]) if compared else scores
