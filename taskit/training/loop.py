"""The training loop: epochs of optimizer steps, with a checkpoint from which a kill loses little."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from transformers import get_cosine_schedule_with_warmup

from taskit.memory.rehearsal import PASSES
from taskit.planning.plan import Plan
from taskit.step.loss import loss_of, row_losses
from taskit.step.recompute import use_checkpointing
from taskit.step.step import make_optimizer, train_step
from taskit.step.targets import target_count
from taskit.training.batches import Batch
from taskit.training.checkpoint import Checkpoints, Progress
from taskit.training.distributed import average_gradients, broadcast_parameters
from taskit.training.dry_run import dry_run, require_fit
from taskit.training.evaluation import better, evaluate, metric_of
from taskit.training.ownership import Interrupts
from taskit.training.peak import PeakMeter
from taskit.training.results import Scores
from taskit.training.run_folder import Event, RunFolder, Watch
from taskit.training.soften import soften
from taskit.transfer.ridge_head import SOFTENED

MEASURED_STEPS = 4  # at the start, beside the longest batch: counting makes a step on a CPU half as long again


@dataclass
class TrainingLoop:
    """The epochs of one adapted model; checkpoints go to ``checkpoint_folder``, events to ``on_event``."""

    plan: Plan
    model: Any
    batches: Any  # Batches, or what makes those of several tasks in the same way
    train_rows: Any
    validation_rows: Any
    accelerator: Accelerator
    folder: RunFolder
    checkpoint_folder: Path
    on_event: Watch
    meter: PeakMeter
    interrupts: Interrupts

    def __post_init__(self) -> None:
        self.recipe, self.task = self.plan.training, self.plan.data.task
        self.metric = metric_of(self.task)
        self.epoch_steps = self.batches.steps_per_epoch(self.train_rows)
        self.steps = self.epoch_steps * self.recipe.epochs
        self.started = time.perf_counter()
        self.progress: Progress
        self.checkpoints: Checkpoints
        if self.recipe.gradient_checkpointing:
            use_checkpointing(self.model, self.recipe.recomputed_blocks)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]

    def run(self, before: Scores | None) -> Progress:
        """All epochs from the last checkpoint, or from the start; leaves the best epoch's weights in the model.

        ``before`` is the score without an adapter, None where a checkpoint holds it.
        """
        self._try_longest_batch()
        with self.meter:
            self.checkpoints = self._make_checkpoints()
        self.progress = self._resume_or_start(before)
        try:
            for epoch in range(self.progress.epoch + 1, self.recipe.epochs + 1):
                if not self._out_of_patience():
                    self._train_epoch(epoch)
        except KeyboardInterrupt:
            self._save_before_stopping()
            raise
        self.accelerator.wait_for_everyone()  # the best weights are on the disk
        self.checkpoints.load_best(self.progress)
        return self.progress

    def _train_epoch(self, epoch: int) -> None:
        """The rest of an epoch after the steps that are done, its validation and its checkpoint."""
        self.model.train()
        skip, saved = self.progress.step - (epoch - 1) * self.epoch_steps, time.monotonic()
        with ExitStack() as measuring:
            if epoch == 1:
                measuring.enter_context(self.meter)
            for micro_batches in self.batches.steps(self.train_rows, epoch, skip):
                self._train_step(epoch, micro_batches)
                if self.progress.step == MEASURED_STEPS:
                    measuring.close()
                if time.monotonic() - saved >= self.recipe.checkpoint_seconds:
                    self._save(self.progress)
                    saved = time.monotonic()
        metric = self.validate()
        progress = replace(self.progress, epoch=epoch)
        if better(self.metric, metric, progress.best_metric):
            progress = replace(progress, best_epoch=epoch, best_metric=metric)
        self.progress = self._save(progress)
        self.on_event(Event("epoch", epoch=epoch, step=progress.step, steps=self.steps, metric=metric))

    def _train_step(self, epoch: int, micro_batches: list[Batch]) -> None:
        """One optimizer step, never interrupted half-way."""
        with self.interrupts.deferred():
            micro_batches = self._soften(micro_batches)
            loss = train_step(
                self.model,
                self.checkpoints.optimizer,
                micro_batches,
                average_gradients,
                self.loss_shares(micro_batches),
                loss=self.loss,
            )
            loss = cast(torch.Tensor, self.accelerator.reduce(loss, "mean"))
            self.checkpoints.schedule.step()
            now = time.perf_counter()
            self.progress = replace(
                self.progress, step=self.progress.step + 1, seconds=self.progress.seconds + now - self.started
            )
            self.started = now
        step = self.progress.step
        self.on_event(Event("step", epoch=epoch, step=step, steps=self.steps, loss=round(loss.item(), 6)))

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean loss of a micro-batch, with its graph."""
        return loss_of(self.model, batch, self.recipe.loss_chunk)

    def loss_shares(self, micro_batches: list[Batch]) -> list[float]:
        """How much each micro-batch counts in the loss of a step, over whose processes gradients are averaged."""
        counts = [target_count(batch, self.model.config.is_encoder_decoder) for batch in micro_batches]
        here = torch.tensor(sum(counts), dtype=torch.float32, device=self.accelerator.device)
        mean = cast(torch.Tensor, self.accelerator.reduce(here, "mean")).item()
        return [count / max(mean, 1e-9) for count in counts]

    def validate(self) -> float:
        """The metric on the validation rows, which chooses the best epoch."""
        batches = self.batches.once(self.validation_rows)
        return evaluate(self.model, batches, self.task, self.accelerator.gather_for_metrics).value

    @property
    def accumulation(self) -> int:
        """Micro-batches of a step, none of which is for a row that there is not."""
        rows = min(self.recipe.batch_size, len(self.train_rows))
        return -(-rows // min(self.batches.at_once, rows))

    @property
    def passes(self) -> int:
        """Micro-batches after which every further one of a step needs the same memory."""
        return min(self.accumulation, PASSES)

    def evaluate_longest(self, batch: Mapping[str, torch.Tensor]) -> None:
        """The forward pass that an evaluation takes."""
        if self.metric == "loss":
            row_losses(self.model, batch, self.recipe.loss_chunk)
        else:
            self.model(**batch)

    def _try_longest_batch(self) -> None:
        """The longest batch through everything once, on a throwaway optimizer, the weights put back afterwards.

        Raises:
            MisfitError: the peak lies above the plan.
        """
        start = [p.detach().to("cpu", copy=True) for p in self.trained]
        with self.meter:
            throwaway = self._make_checkpoints()
            longest, held_out = (self.batches.longest(rows) for rows in (self.train_rows, self.validation_rows))
            dry_run(
                self.model,
                throwaway.optimizer,
                lambda: [longest() for _ in range(2 * self.accumulation)],
                self.passes,
                held_out,
                self.loss,
                self.evaluate_longest,
            )
            if self.accelerator.is_main_process:
                throwaway.try_save()
        with torch.no_grad():
            for parameter, value in zip(self.trained, start, strict=True):
                parameter.copy_(value)
        require_fit(self.plan, self.meter.peak_of_all(self.accelerator))
        broadcast_parameters(self.trained)

    def _make_checkpoints(self) -> Checkpoints:
        """A new optimizer and schedule, and the folder into which they are saved with the weights."""
        recipe, rate = self.recipe, self.recipe.rate(self.plan.ranks.values())
        optimizer = make_optimizer(recipe.optimizer, self._parameter_groups(rate), rate, recipe.weight_decay)
        schedule = get_cosine_schedule_with_warmup(optimizer, round(recipe.warmup * self.steps), self.steps)
        return Checkpoints(self.checkpoint_folder, self.model, optimizer, schedule)

    def _parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """LoRA and heads apart: a softened head learns as slowly as its weights are small."""
        lora: list[Any] = []
        heads: list[Any] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                (lora if "lora_" in name else heads).append(parameter)
        groups = [{"params": lora}, {"params": heads, "lr": rate * SOFTENED}]
        return [group for group in groups if group["params"]]

    def _resume_or_start(self, before: Scores | None) -> Progress:
        """The progress in the newest checkpoint, which is loaded; without one, that of a start, which is saved."""
        progress = self.checkpoints.resume()
        self.accelerator.wait_for_everyone()  # nobody looks for a checkpoint that another is just writing
        if progress is None:
            assert before is not None
            return self._save(Progress(0, 0, 0, self.validate(), before, self.accelerator.device.type))
        self.on_event(Event("resumed", "going on from a checkpoint", epoch=progress.epoch, step=progress.step))
        return progress

    def _out_of_patience(self) -> bool:
        """Whether ``patience`` epochs have passed without a better one."""
        waited = self.progress.epoch - self.progress.best_epoch
        return self.recipe.patience is not None and waited >= self.recipe.patience

    def _soften(self, micro_batches: list[Batch]) -> list[Batch]:
        """The step with soft labels, where the recipe asks for them: images mix within the whole batch."""
        if self.metric != "accuracy":
            return micro_batches
        seed = np.random.SeedSequence([self.plan.seed, self.progress.step, self.accelerator.process_index])
        return soften(micro_batches, len(self.plan.data.labels), self.recipe, seed)

    def _save(self, progress: Progress) -> Progress:
        return self.checkpoints.save(progress) if self.accelerator.is_main_process else progress

    def _save_before_stopping(self) -> None:
        if self.accelerator.is_main_process:
            with self.interrupts.deferred():
                self.folder.set_state("stopping")
                self.checkpoints.save(self.progress)
