"""The training loop: epochs of optimizer steps, with a checkpoint from which a kill loses little."""

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from transformers import get_cosine_schedule_with_warmup

from taskit.planning.plan import Plan
from taskit.step.step import make_optimizer, train_step, use_checkpointing
from taskit.training.batches import Batch
from taskit.training.checkpoint import Checkpoints, Progress
from taskit.training.evaluation import better, evaluate, metric_of, target_count
from taskit.training.fit_first import fit_first, require_fit
from taskit.training.interrupt import Interrupts
from taskit.training.peak import PeakMeter
from taskit.training.processes import average_gradients, share_start
from taskit.training.run_folder import Event, RunFolder, Watch
from taskit.training.scores import Scores
from taskit.training.soften import soften
from taskit.transfer.ridge_head import SOFTENED

MEASURED_STEPS = 4  # at the start, beside the longest batch: counting makes a step on a CPU half as long again


@dataclass
class Fitting:
    """One adapted model under training."""

    plan: Plan
    model: Any
    batches: Any  # Batches, or what makes those of several tasks in the same way
    train_rows: Any
    validation_rows: Any
    accelerator: Accelerator
    folder: RunFolder
    emit: Watch
    meter: PeakMeter
    interrupts: Interrupts

    def __post_init__(self) -> None:
        self.recipe, self.task = self.plan.training, self.plan.data.task
        self.metric = metric_of(self.task)
        self.epoch_steps = self.batches.steps_per_epoch(self.train_rows)
        self.steps = self.epoch_steps * self.recipe.epochs
        self.started = time.perf_counter()
        self.progress: Progress
        if self.recipe.gradient_checkpointing:
            use_checkpointing(self.model)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]

    def fit(self, before: Scores | None) -> Progress:
        """All epochs from the last checkpoint, or from the start; leaves the best epoch's weights in the model.

        ``before`` is the score without an adapter, None where a checkpoint holds it.
        """
        self._fit_first()
        with self.meter:
            kept = self._checkpoints()
        progress = kept.resume()
        self.accelerator.wait_for_everyone()  # nobody looks for a checkpoint that another is just writing
        if progress is None:
            assert before is not None
            start = Progress(0, 0, 0, self._validate(), before, self.accelerator.device.type)
            progress = self._save(kept, start)
        else:
            self.emit(Event("resumed", "going on from a checkpoint", epoch=progress.epoch, step=progress.step))
        self.progress = progress
        try:
            for epoch in range(progress.epoch + 1, self.recipe.epochs + 1):
                if not self._hopeless():
                    self._epoch(kept, epoch)
        except KeyboardInterrupt:
            if self.accelerator.is_main_process:
                with self.interrupts.deferred():
                    self.folder.set_state("stopping")
                    kept.save(self.progress)
            raise
        self.accelerator.wait_for_everyone()  # the best weights are on the disk
        kept.load_best(self.progress)
        return self.progress

    def _fit_first(self) -> None:
        """The longest batch through everything once, on a throwaway optimizer, the weights put back afterwards.

        Raises:
            MisfitError: the peak lies above the plan.
        """
        start = [p.detach().to("cpu", copy=True) for p in self.trained]
        with self.meter:
            throwaway = self._checkpoints()
            longest, held_out = (self.batches.longest(rows) for rows in (self.train_rows, self.validation_rows))
            fit_first(self.model, throwaway.optimizer, longest, held_out, self.recipe.gradient_accumulation)
            if self.accelerator.is_main_process:
                throwaway.try_save()
        with torch.no_grad():
            for parameter, value in zip(self.trained, start, strict=True):
                parameter.copy_(value)
        require_fit(self.plan, self.peak())
        share_start(self.trained)

    def peak(self) -> int:
        """The measured peak so far, in bytes: the largest of all processes."""
        own = torch.tensor([self.meter.peak[0]], device=self.accelerator.device)
        return max(cast("torch.Tensor", self.accelerator.gather(own)).tolist())

    def _checkpoints(self) -> Checkpoints:
        recipe, rate = self.recipe, self.recipe.rate(self.plan.ranks.values())
        optimizer = make_optimizer(recipe.optimizer, self._groups(rate), rate, recipe.weight_decay)
        schedule = get_cosine_schedule_with_warmup(optimizer, round(recipe.warmup * self.steps), self.steps)
        return Checkpoints(self.folder.checkpoints, self.model, optimizer, schedule)

    def _groups(self, rate: float) -> list[dict[str, Any]]:
        """LoRA and heads apart: a softened head learns as slowly as its weights are small."""
        lora: list[Any] = []
        heads: list[Any] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                (lora if "lora_" in name else heads).append(parameter)
        groups = [{"params": lora}, {"params": heads, "lr": rate * SOFTENED}]
        return [group for group in groups if group["params"]]

    def _hopeless(self) -> bool:
        """Whether ``patience`` epochs have passed without a better one."""
        waited = self.progress.epoch - self.progress.best_epoch
        return self.recipe.patience is not None and waited >= self.recipe.patience

    def _epoch(self, kept: Checkpoints, epoch: int) -> None:
        """The rest of an epoch, and its validation."""
        self.model.train()
        skip, saved = self.progress.step - (epoch - 1) * self.epoch_steps, time.monotonic()
        with ExitStack() as measuring:
            if epoch == 1:
                measuring.enter_context(self.meter)
            for micro_batches in self.batches.steps(self.train_rows, epoch, skip):
                self._step(kept, epoch, micro_batches)
                if self.progress.step == MEASURED_STEPS:
                    measuring.close()
                if time.monotonic() - saved >= self.recipe.checkpoint_seconds:
                    self._save(kept, self.progress)
                    saved = time.monotonic()
        metric = self._validate()
        progress = replace(self.progress, epoch=epoch)
        if better(self.metric, metric, progress.best_metric):
            progress = replace(progress, best_epoch=epoch, best_metric=metric)
        self.progress = self._save(kept, progress)
        self.emit(Event("epoch", epoch=epoch, step=progress.step, steps=self.steps, metric=metric))

    def _step(self, kept: Checkpoints, epoch: int, micro_batches: list[Batch]) -> None:
        """One optimizer step, never interrupted half-way."""
        with self.interrupts.deferred():
            micro_batches = [self._softened(batch, part) for part, batch in enumerate(micro_batches)]
            shares = self._shares(micro_batches)
            loss = train_step(self.model, kept.optimizer, micro_batches, average_gradients, shares)
            kept.schedule.step()
            now = time.perf_counter()
            self.progress = replace(
                self.progress, step=self.progress.step + 1, seconds=self.progress.seconds + now - self.started
            )
            self.started = now
        step = self.progress.step
        self.emit(Event("step", epoch=epoch, step=step, steps=self.steps, loss=round(loss.item(), 6)))

    def _shares(self, micro_batches: list[Batch]) -> list[float]:
        """How much each micro-batch counts in the loss of a step: by its targets, as in one whole batch."""
        targets = [target_count(batch, self.model.config.is_encoder_decoder) for batch in micro_batches]
        return [count / max(sum(targets), 1) for count in targets]

    def _softened(self, batch: Batch, part: int) -> Batch:
        if self.metric != "accuracy":
            return batch
        position = self.progress.step * self.recipe.gradient_accumulation + part
        draw = np.random.SeedSequence([self.plan.seed, position, self.accelerator.process_index])
        return soften(batch, len(self.plan.data.labels), self.recipe, draw)

    def _save(self, kept: Checkpoints, progress: Progress) -> Progress:
        return kept.save(progress) if self.accelerator.is_main_process else progress

    def _validate(self) -> float:
        batches = self.batches.once(self.validation_rows)
        return evaluate(self.model, batches, self.task, self.accelerator.gather_for_metrics).value
