"""h(r): how much of a location's importance rank r realises (TaskIT, Table 2)."""

import math
from collections.abc import Callable, Sequence

from taskit.errors import PlanError

RANKS = (1, 2, 4, 8, 16, 32, 64)  # R without 0; rank 0 is "not inserted"

# The paper prints sqrt(ln(r)+1)/sqrt(ln(max R + 1)), which exceeds 1; sqrt_ln1p repairs its numerator.
FORMS: dict[str, Callable[[float], float]] = {
    "one": lambda r: 1.0,  # noqa: ARG005
    "linear": lambda r: r,
    "ln": math.log,
    "sqrt": math.sqrt,
    "sqrt_ln": lambda r: math.sqrt(math.log(r)),
    "sqrt_ln1p": lambda r: math.sqrt(math.log1p(r)),
}


def rank_gain(rank: int, max_rank: int, form: str = "sqrt_ln1p") -> float:
    """Return h(rank) in [0, 1], with h(0) = 0 and h(max_rank) = 1.

    `ln` and `sqrt_ln` give rank 1 nothing, as printed in the paper's supplement, so they never choose it.

    >>> round(rank_gain(8, 64), 4)
    0.7255
    """
    if form not in FORMS:
        raise PlanError(f"There is no rank gain called {form!r}; choose one of {', '.join(FORMS)}.")
    if rank == 0:
        return 0.0
    return FORMS[form](rank) / (FORMS[form](max_rank) or 1.0)  # max_rank = 1: ln(1) = 0


def objective(ranks: Sequence[int], importance: Sequence[float], max_rank: int, form: str = "sqrt_ln1p") -> float:
    """Return sum_k h(r_k) * lambda_k, what the scheduler maximises."""
    h = {rank: rank_gain(rank, max_rank, form) for rank in set(ranks)}
    return math.fsum(h[rank] * value for rank, value in zip(ranks, importance, strict=True))
