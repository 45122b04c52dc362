"""Fisher similarity (π-Tuning Eq. 3): two tasks are alike if their losses are sensitive to the same weights.

    F_i = (1/n) sum_j (dL_j / dW)^2      one example j at a time, at theta + w_i

The embedding is that of the projection matrices W, averaged over the inputs of each output (the filters of
Task2Vec), and not that of A and B: there the same update in a rotated basis has another embedding.  The target stands
at its trial w_0 (trial.py), and all embeddings are taken on data of the new task.  Their cosine is Task2Vec's,

    cos(F_0 / (F_0 + F_1 + eps), F_1 / (F_0 + F_1 + eps))

for each matrix, averaged over the matrices; eps is relative to the mean of F_0 + F_1, since the absolute 1e-6 of the
published code makes it a plain cosine where Fisher values are small.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from taskit.transfer.sensitivity import fisher_filters
from taskit.zoo.lora_branch import Branch, attached

ROWS = 64  # examples of an embedding
EPS = 1e-6

Embedding = Mapping[str, Tensor]  # location -> (out,)


def embed(
    model: PreTrainedModel,
    examples: Iterable[Mapping[str, Tensor]],
    loss: Callable[[Mapping[str, Tensor]], Tensor],
    branches: Mapping[str, Branch],
    locations: Sequence[str],
) -> Embedding:
    """F_i of the adapter ``branches`` on the first ROWS of ``examples``, batches of one row each."""
    with attached(model, branches):
        return fisher_filters(model, islice(examples, ROWS), loss, locations)


def likeness_of(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """Mean over the matrices of Task2Vec's cosine between two embeddings with the same names."""
    return sum(task2vec_cosine(left[name], right[name]) for name in left) / len(left)


def task2vec_cosine(one: Tensor, other: Tensor) -> float:
    """Of two vectors that are not negative; 1 for multiples of each other, 0 where either vanishes.

    >>> round(task2vec_cosine(torch.tensor([1.0, 2, 0]), torch.tensor([1.0, 0, 3])), 2)
    0.2
    """
    both = one + other
    both = both + EPS * both.mean()
    return float(torch.nn.functional.cosine_similarity(one / both, other / both, dim=0).nan_to_num())
