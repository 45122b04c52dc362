"""Train exactly what a plan says, and leave a run folder with a plain PEFT adapter in it."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import get_cosine_schedule_with_warmup

from taskit.backbone import final_linear, head_names, load_model
from taskit.data import Collator, Dataset, load
from taskit.data.splitting import split
from taskit.errors import RunError
from taskit.export import write_adapter
from taskit.memory.live import standing_tensors
from taskit.plan import Plan
from taskit.planning import make_collator, reprice
from taskit.training.checkpoint import Checkpoints, Progress
from taskit.training.evaluation import better, evaluate, metric_of
from taskit.training.interrupt import Interrupts
from taskit.training.lock import Owner, locked, write_owner
from taskit.training.lora import adapt
from taskit.training.peak import PeakMeter
from taskit.training.probe_head import fit_linear_head
from taskit.training.run_folder import Event, Result, RunFolder, stamped
from taskit.training.step import make_optimizer, train_step, use_checkpointing

VALIDATION = 0.1  # of the training rows: chooses the epoch, so that the evaluation rows choose nothing
SOFTENED = 0.1  # scale of the fitted head's logits at the start of training
Watch = Callable[[Event], None]


def train(plan: Plan, out: str | Path, *, resume: bool = False, watch: Watch = lambda _: None) -> Result:
    """Train ``plan`` into the run folder ``out``; ``watch`` sees every event as it happens.

    The best epoch by a validation tenth of the training rows is kept.  With ``resume`` the run in ``out``, queued
    or stopped, goes on by its own plan from its last checkpoint and ends as it would have without the stop.

    Raises:
        RunError: the folder is taken or in use, or the data is no longer what the plan was made for.
        BudgetError: the plan's ranks, perhaps edited, need more than its budget.
    """
    folder = RunFolder(out)
    if resume:
        plan = Plan.from_dict(folder.read_json("plan.json"), str(folder.path / "plan.json"))
    prepared = None if resume else _prepare(plan)  # before the folder, which bad input should not make
    if not resume:
        folder.reserve()
    with locked(folder.path):
        if (folder.path / "result.json").exists():
            raise RunError(f"The run in {folder.path} is finished; start a new one with another --out.")
        write_owner(folder.path, Owner.of(os.getpid()))
        folder.mend_events()
        with folder.running(), Interrupts().listening():
            plan, data, collator = prepared or _prepare(plan)
            folder.write_json("plan.json", plan.to_dict())
            result = _run(plan, data, collator, folder, watch)
    return result


def _prepare(plan: Plan) -> tuple[Plan, Dataset, Collator]:
    """The plan with its price checked, and what it is trained on."""
    data = load(plan.data.source, columns=dict(plan.data.columns), seed=plan.seed)
    if data.info.fingerprint != plan.data.fingerprint:
        raise RunError(f"{plan.data.source} has changed since the plan was made; run taskit plan again.")
    collator = make_collator(plan.backbone, plan.data.task, plan.training.max_length)
    return reprice(plan, data, collator), data, collator


def _run(plan: Plan, data: Dataset, collator: Collator, folder: RunFolder, watch: Watch) -> Result:
    def tell(event: Event) -> None:
        event = stamped(event)
        folder.append(event)
        watch(event)

    accelerator = Accelerator(gradient_accumulation_steps=1)
    result = _Training(plan, data, collator, accelerator, folder, tell, PeakMeter(accelerator.device)).run()
    tell(Event("done", metric=result.after))
    folder.write_json("result.json", asdict(result))
    return result


@dataclass
class _Training:
    """One run under way."""

    plan: Plan
    data: Dataset
    collator: Collator
    accelerator: Accelerator
    folder: RunFolder
    tell: Watch
    meter: PeakMeter

    def __post_init__(self) -> None:
        strata = self.data.train["label"] if self.plan.data.labels else [0] * len(self.data.train)
        kept, held_out = split(strata, VALIDATION, self.plan.seed)
        self.train_rows, self.validation_rows = self.data.train.select(kept), self.data.train.select(held_out)
        self.task, self.recipe = self.plan.data.task, self.plan.training
        self.metric = metric_of(self.task)

    def run(self) -> Result:
        started = time.perf_counter()
        set_seed(self.plan.seed)
        device = self.accelerator.device
        with self.meter:
            model = load_model(self.plan.backbone, task=self.task, labels=self.plan.data.labels, device=device)
            self.meter.follow(standing_tensors(model))
            before = self._before(model)
        self.tell(Event("note", f"{self.metric} with the linear head alone: {before:.4f}", metric=before))
        heads = head_names(model, self.task)
        model = adapt(model, self.plan.ranks, heads, self.task)
        progress = self._fit(model)
        after = self._evaluate(model, self.data.evaluation)
        measured, how = self.meter.peak
        result = Result(
            metric=self.metric,
            before=before,
            after=after,
            predicted_peak_bytes=self.plan.memory.peak_bytes,
            measured_peak_bytes=measured,
            measured_with=how,
            train_seconds=round(time.perf_counter() - started, 2),
            steps=self._steps_per_epoch() * self.recipe.epochs,
            trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            best_epoch=progress.best_epoch,
        )
        if self.accelerator.is_main_process:
            write_adapter(model, self.plan, result, self.folder.adapter)
        return result

    def _before(self, model: Any) -> float:
        """The metric without any adapter: for a classifier, with the best linear head on frozen features.

        Training goes on from that head, its logits scaled down: it predicts the same, but no longer explains
        the training rows so well that the LoRA is left with next to no gradient.
        """
        if not self.plan.data.labels:
            return self._evaluate(model, self.data.evaluation)
        self.tell(Event("note", "fitting a linear head on the frozen features"))
        head = final_linear(model)
        parts = (self._batches(rows) for rows in (self.train_rows, self.validation_rows))
        fit_linear_head(model, head, *parts)
        before = self._evaluate(model, self.data.evaluation)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.mul_(SOFTENED)
        return before

    def _fit(self, model: Any) -> Progress:
        """All epochs, from the last checkpoint if there is one; leaves the best epoch's weights in ``model``.

        The peak is measured until the end of the first epoch: later ones repeat its shapes, and on a CPU
        counting makes a step half as long again.
        """
        recipe, steps = self.recipe, self._steps_per_epoch() * self.recipe.epochs
        if recipe.gradient_checkpointing:
            use_checkpointing(model)
        with self.meter:
            groups = self._parameter_groups(model)
            optimizer = make_optimizer(recipe.optimizer, groups, recipe.learning_rate, recipe.weight_decay)
            schedule = get_cosine_schedule_with_warmup(optimizer, round(recipe.warmup * steps), steps)
            model, optimizer = self.accelerator.prepare(model, optimizer)
            kept = Checkpoints(self.folder.checkpoints, self.accelerator.unwrap_model(model), optimizer, schedule)
            progress = kept.resume() or kept.save(Progress(0, 0, self._evaluate(model, self.validation_rows)))
        first = progress.epoch + 1
        for epoch in range(first, recipe.epochs + 1):
            with self.meter if epoch == first else nullcontext():
                metric = self._epoch(model, optimizer, schedule, epoch, steps)
            if better(self.metric, metric, progress.best_metric):
                progress = replace(progress, best_epoch=epoch, best_metric=metric)
            progress = kept.save(replace(progress, epoch=epoch))
            self.tell(Event("epoch", epoch=epoch, step=epoch * self._steps_per_epoch(), steps=steps, metric=metric))
        kept.load_best(progress)
        return progress

    def _parameter_groups(self, model: Any) -> list[dict[str, Any]]:
        """LoRA and heads apart: a softened head learns as slowly as its weights are small."""
        lora: list[Any] = []
        heads: list[Any] = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                (lora if "lora_" in name else heads).append(parameter)
        groups = [{"params": lora}, {"params": heads, "lr": self.recipe.learning_rate * SOFTENED}]
        return [group for group in groups if group["params"]]

    def _epoch(self, model: Any, optimizer: Any, schedule: Any, epoch: int, steps: int) -> float:
        """One pass over the training rows; returns the metric on the validation rows."""
        model.train()
        done = (epoch - 1) * self._steps_per_epoch()
        for micro_batches in self._steps(epoch):
            loss = train_step(model, optimizer, micro_batches, self.accelerator.backward)
            schedule.step()
            done += 1
            self.tell(Event("step", epoch=epoch, step=done, steps=steps, loss=round(loss.item(), 6)))
        return self._evaluate(model, self.validation_rows)

    def _steps(self, epoch: int) -> Iterator[list[dict]]:
        """Groups of ``gradient_accumulation`` micro-batches, shuffled by the seed and the epoch."""
        group = []
        for batch in self._batches(self.train_rows, shuffle=self.plan.seed + epoch):
            group.append(batch)
            if len(group) == self.recipe.gradient_accumulation:
                yield group
                group = []
        if group:
            yield group

    def _steps_per_epoch(self) -> int:
        rows = self.recipe.batch_size * self.accelerator.num_processes * self.recipe.gradient_accumulation
        return -(-len(self.train_rows) // rows)

    def _batches(self, rows: Any, shuffle: int | None = None) -> DataLoader:
        generator = None if shuffle is None else torch.Generator().manual_seed(shuffle)
        loader = DataLoader(
            rows,
            batch_size=self.recipe.batch_size,
            shuffle=generator is not None,
            generator=generator,
            collate_fn=self.collator,
        )
        return self.accelerator.prepare_data_loader(loader)

    def _evaluate(self, model: Any, rows: Any) -> float:
        return evaluate(model, self._batches(rows), self.task, self.accelerator.gather_for_metrics)
