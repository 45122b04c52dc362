"""What PEFT and Transformers offer beside plain LoRA, in TaskIT's own loop: DoRA, AdaLoRA, BitFit, everything.

None of them ships a plain LoRA, so they are measured here and are no `--method`.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from peft import AdaLoraConfig, get_peft_model
from torch.optim.optimizer import register_optimizer_step_post_hook

from taskit.backbone.heads import head_names
from taskit.backbone.loading import load_model
from taskit.backbone.processors import make_collator
from taskit.memory.live import standing_tensors
from taskit.planning.plan import Plan
from taskit.step.lora import lora_config
from taskit.training.batches import load_data
from taskit.training.ownership import Interrupts
from taskit.training.run_folder import RunFolder
from taskit.training.tracking import make_accelerator
from taskit.training.trainer import TrainingRun
from taskit.transfer.ridge_head import SOFTENED

TRYING = 2  # optimizer steps that the run takes before the first one that counts
UNBOUNDED = 1 << 50  # bytes: a reference is measured, not bounded


def dora(model: Any, plan: Plan, heads: tuple[str, ...]) -> Any:
    """The plan's LoRA with PEFT's magnitudes."""
    config = lora_config(model, plan.ranks, heads, plan.data.task)
    config.use_dora = True
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def adalora(model: Any, plan: Plan, heads: tuple[str, ...]) -> Any:
    """AdaLoRA at the plan's locations, with PEFT's defaults, from 1.5 times the plan's largest rank down to it."""
    rank = max(plan.ranks.values())
    steps = plan.training.epochs * -(-plan.data.train_rows // plan.training.batch_size)
    plain = lora_config(model, plan.ranks, heads, plan.data.task)
    config = AdaLoraConfig(
        target_r=rank,
        init_r=rank + rank // 2 + rank % 2,
        tinit=steps // 10,
        tfinal=steps // 2,
        deltaT=max(steps // 100, 1),
        total_step=steps,
        target_modules=plain.target_modules,
        modules_to_save=plain.modules_to_save,
        task_type=plain.task_type,
        lora_alpha=rank,
    )
    return get_peft_model(model, config)


def bitfit(model: Any, _: Plan, heads: tuple[str, ...]) -> Any:
    """Every bias, and the heads."""
    for name, parameter in model.named_parameters():
        in_head = any(name.startswith(f"{head}.") for head in heads)
        parameter.requires_grad_(in_head or name.endswith("bias"))
    return model


def everything(model: Any, _: Plan, __: tuple[str, ...]) -> Any:
    return model.requires_grad_(True)


REFERENCES: dict[str, Callable[[Any, Plan, tuple[str, ...]], Any]] = {
    "dora": dora,
    "adalora": adalora,
    "bitfit": bitfit,
    "full": everything,
}
RATES = {"full": 5e-5, "bitfit": 2e-3}  # of all but LoRA, which trains at the plan's


class Reference(TrainingRun):
    """A run of the trainer with another model, and without an adapter to ship."""

    def train(self, name: str) -> dict[str, Any]:
        plan = self.plan
        set_seed(plan.seed)
        with self.meter:
            model = load_model(plan.backbone, task=plan.data.task, labels=plan.data.labels)
            self.meter.follow(standing_tensors(model))
        before = self.score_before(model)
        made = REFERENCES[name](model, plan, head_names(model, plan.data.task))
        hook = register_optimizer_step_post_hook(Allocating(made, TRYING)) if name == "adalora" else None
        progress = self.loop(made, plan.training, self.folder.checkpoints, self.record).run(before)
        if hook:
            hook.remove()
        return {
            "before": before.value,
            "after": self.evaluate(made).value,
            "measured_peak_bytes": self.meter.peak_of_all(self.accelerator),
            "predicted_peak_bytes": None,
            "train_seconds": progress.seconds,
            "learns": True,
            "trainable_parameters": sum(p.numel() for p in made.parameters() if p.requires_grad),
        }


class Allocating:
    """AdaLoRA's own step after each of the optimizer's, but for the first ones that only try whether it fits."""

    def __init__(self, model: Any, trying: int) -> None:
        self.model, self.step = model, -trying

    def __call__(self, *_: Any) -> None:
        self.step += 1
        if self.step > 0:
            self.model.base_model.update_and_allocate(self.step)


def train_reference(name: str, plan: Plan, out: Path, faster: float = 1) -> dict[str, Any]:
    """Train ``name`` on the data of ``plan`` and where it has a LoRA; the fields are those of a run's result.

    ``faster`` multiplies its learning rate.
    """
    # the trainer lets whatever is no LoRA learn SOFTENED times as fast
    rate = RATES[name] / SOFTENED if name in RATES else plan.training.rate(plan.ranks.values())
    recipe = replace(plan.training, learning_rate=faster * rate)
    plan = replace(plan, training=recipe, budget_bytes=UNBOUNDED)
    data = load_data(plan)
    collator = make_collator(plan.backbone, plan.data.task, recipe.max_length)
    folder, accelerator = RunFolder(out), make_accelerator(None, out)
    out.mkdir(parents=True, exist_ok=True)
    return Reference(plan, data, collator, accelerator, folder, lambda _: None, Interrupts()).train(name)
