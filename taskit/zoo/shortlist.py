"""A shortlist of a large zoo, from weights alone: a thousand adapters are ranked without a thousand forwards.

    cos(dW_0, dW_i) = <dW_0, dW_i> / (||dW_0|| ||dW_i||),  <dW_0, dW_i> = sum_k s_0 s_i sum((B_0' B_i) * (A_0 A_i'))

over all locations k, with w_0 the trial (transfer/trial.py): products of rank x rank, no matrix of the size of W_k.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from taskit.errors import ZooError
from taskit.zoo.adapter import read_config, read_tensors
from taskit.zoo.lora_branch import Branch
from taskit.zoo.zoo import LearnedTask

MOST = 32  # learned tasks that are tried by a forward each

Branches = Mapping[str, Branch]


def weight_cosine(left: Branches, right: Branches) -> float:
    """Cosine of two updates of the weights, each over all its locations; 0 where either vanishes."""
    norm = (_product(left, left) * _product(right, right)) ** 0.5
    return _product(left, right) / norm if norm else 0.0


def shortlist(
    tasks: Sequence[LearnedTask],
    tried: Branches,
    shapes: Mapping[str, tuple[int, int]],
    current: Callable[[str], str],
) -> tuple[tuple[LearnedTask, ...], tuple[tuple[str, str], ...]]:
    """The MOST learned tasks whose updates are most like the trial's, in the order of the zoo; the others with why.

    An adapter that cannot be read stays in: the forward with it raises the error that names what is wrong.
    """
    if len(tasks) <= MOST:
        return tuple(tasks), ()
    cosines = [_cosine_or_first(task, tried, shapes, current) for task in tasks]
    limit = sorted(cosines, reverse=True)[MOST - 1]
    kept = [task for task, cosine in zip(tasks, cosines, strict=True) if cosine >= limit]
    reason = f"Its weights are less like those of a trial on the new task than the {MOST} that were compared."
    names = {task.adapter for task in kept}
    return tuple(kept), tuple((task.adapter, reason) for task in tasks if task.adapter not in names)


def _cosine_or_first(
    task: LearnedTask, tried: Branches, shapes: Mapping[str, tuple[int, int]], current: Callable[[str], str]
) -> float:
    try:
        cosine = weight_cosine(tried, read_tensors(task.folder, read_config(task.folder), shapes, current))
    except ZooError:
        return math.inf
    return cosine if math.isfinite(cosine) else math.inf


def _product(left: Branches, right: Branches) -> float:
    return sum(
        one.scaling * other.scaling * float(((one.b.T @ other.b) * (one.a @ other.a.T)).sum())
        for name, one in left.items()
        if (other := right.get(name)) is not None
    )
