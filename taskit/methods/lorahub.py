"""LoraHub (COLM 2024): how much of each learned LoRA, found by trying, with forward passes only.

    min_w  L(examples; dW(w)) + 0.05 mean_i |w_i|,   dW(w) = (sum_i w_i s_i B_i)(sum_i w_i A_i),   |w_i| <= 1.5

in 40 evaluations from w = 0, which is the base model.  The paper's CMA-ES is the reference implementation's here; the
released code divides a batch's mean loss by the number of examples once more, so that its penalty depends on the
batch size: L is the plain mean over the examples (our reading).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from taskit.transfer.similarity import TaskSimilarity

EVALUATIONS = 40
BOUND = 1.5
PENALTY = 0.05
STEP = 0.5  # the first standard deviation of CMA-ES: a third of the way to the bound
EXAMPLES = 64  # rows on which a mixture is tried, or
CLASS_EXAMPLES = 4  # for each class: a head is fitted to the others of them

Weights = tuple[float, ...]


def draw(similarities: Sequence[TaskSimilarity], most: int, seed: int) -> tuple[TaskSimilarity, ...]:
    """The same, ``used`` being ``most`` of them at random, as in the paper, or all where they are fewer."""
    count = len(similarities)
    drawn = set(np.random.default_rng(seed).permutation(count)[:most].tolist())
    return tuple(replace(one, used=position in drawn) for position, one in enumerate(similarities))


def seek_weights(
    loss: Callable[[Sequence[float]], float],
    count: int,
    seed: int,
    on_progress: Callable[[int, float], None] = lambda *_: None,
) -> Weights:
    """The best w (count,) of EVALUATIONS tries at ``loss``, the mean over examples in nats; ``count`` is 2 or more.

    ``on_progress`` is called with the number of each try and the best objective so far.  A loss that is not
    finite counts as the worst.  Deterministic, and the global random state stays as it is.
    """
    import cma

    choose = np.random.default_rng(seed)
    options = {"bounds": [-BOUND, BOUND], "verbose": -9, "seed": math.nan}  # NaN: numpy's own seed is left alone
    options["randn"] = lambda *shape: choose.standard_normal(shape)
    search = cma.CMAEvolutionStrategy([0.0] * count, STEP, options)
    best, least, tries = (0.0,) * count, _objective(loss, (0.0,) * count), 1
    on_progress(tries, least)
    while tries < EVALUATIONS:
        asked = search.ask()
        found = []
        for w in asked[: EVALUATIONS - tries]:
            weights = tuple(map(float, w))
            found.append(_objective(loss, weights))
            if found[-1] < least:
                best, least = weights, found[-1]
            tries += 1
            on_progress(tries, least)
        if len(found) == len(asked):
            search.tell(asked, found)
    return best


def _objective(loss: Callable[[Sequence[float]], float], weights: Weights) -> float:
    value = loss(weights) + PENALTY * sum(map(abs, weights)) / len(weights)
    return value if math.isfinite(value) else math.inf
