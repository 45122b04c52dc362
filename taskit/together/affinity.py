"""How alike tasks are: their gradients on a LoRA that all share, after a short warm-up (TGLoRA, arXiv 2509.19602).

The paper says neither where nor when the gradients are taken.  Our reading: on the pairs that all tasks share, after
a few joint steps, because at the start B = 0 leaves A without any gradient; a few batches of each task, one seed.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import nn

from taskit.backbone.heads import final_linear
from taskit.backbone.loading import empty_model, load_model
from taskit.backbone.sources import Backbone
from taskit.data import Collator, Dataset
from taskit.planning.recipe import Recipe
from taskit.step.loss import loss_chunk
from taskit.step.step import Loss, make_optimizer, train_step
from taskit.step.targets import inputs_of
from taskit.together.task_tree import TaskTree, similarity_matrix
from taskit.together.tglora import JointModel, join, joint_loss, share_backbone, shared_gradient, together
from taskit.transfer.probe import example_features
from taskit.transfer.ridge_head import SOFTENED, fit_head
from taskit.transfer.trial import LEARNING_RATE

STEPS = 32  # of the warm-up
BATCHES = 4  # of each task, whose gradients are compared with every other's

Batch = dict[str, torch.Tensor]


def affinity(
    backbone: Backbone,
    data: Sequence[Dataset],
    collators: Sequence[Collator],
    ranks: Mapping[str, int],
    recipe: Recipe,
    seed: int,
    on_progress: Callable[[str], None],
) -> np.ndarray:
    """S (T, T) of the tasks that ``data`` hold; ``ranks`` are by location."""
    count, task = len(data), data[0].info.task
    on_progress("loading the backbone")
    first = load_model(backbone, task=task, labels=data[0].info.labels)
    twins = [empty_model(backbone, task=task, labels=one.info.labels) for one in data[1:]]
    share_backbone(first, twins, task)
    batches = [_batches(*one, recipe.batch_size, seed) for one in zip(data, collators, strict=True)]
    if data[0].info.labels:
        for model, some in zip((first, *twins), batches, strict=True):
            _start_head(model, final_linear(model), some)
    everybody = (tuple(range(count)),)
    torch.manual_seed(seed)
    joint = join([first, *twins], ranks, TaskTree(("",) * count, (), (everybody,)), task)
    on_progress(f"comparing the gradients of {count} tasks")
    loss = partial(joint_loss, joint, chunk=loss_chunk(joint.models[0]))
    _warm_up(joint, batches, loss)
    some = [batches[t][:BATCHES] for t in range(count)]
    return similarity_matrix([[_gradient(joint, batch, t, loss) for batch in one] for t, one in enumerate(some)])


def _batches(data: Dataset, collator: Collator, size: int, seed: int) -> list[Batch]:
    """As many as the warm-up takes, of rows drawn once; fewer where the rows are fewer."""
    rows = data.train.shuffle(seed=seed)
    starts = range(0, len(rows), size)[:STEPS]
    return [collator([dict(row) for row in rows.select(range(at, min(at + size, len(rows))))]) for at in starts]


def _start_head(model: Any, head: nn.Linear, batches: Sequence[Batch]) -> None:
    """The closed-form head on frozen features, scaled as at the start of every training."""
    features = torch.cat([example_features(model, head, inputs_of(batch)) for batch in batches])
    fitted = fit_head(features, torch.cat([batch["labels"] for batch in batches]), head.out_features)
    with torch.no_grad():
        head.weight.copy_(SOFTENED * fitted.weight)
        if head.bias is not None:
            head.bias.copy_(SOFTENED * fitted.bias)


def _warm_up(joint: JointModel, batches: Sequence[Sequence[Batch]], loss: Loss) -> None:
    trained = [p for p in joint.parameters() if p.requires_grad]
    optimizer = make_optimizer("adamw", trained, LEARNING_RATE, 0.0)
    endless = zip(*map(cycle, batches), strict=True)
    for one_each in islice(endless, STEPS):
        train_step(joint, optimizer, together(one_each, range(len(one_each))), loss=loss)


def _gradient(joint: JointModel, batch: Batch, task: int, loss: Loss) -> torch.Tensor:
    (marked,) = together([batch], [task])
    loss(marked).backward()
    return shared_gradient(joint)
