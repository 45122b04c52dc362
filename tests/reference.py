"""Obvious, slow versions of what TaskIT computes fast; nothing here shares code with `taskit`."""

import itertools
import math


def union_bytes(profile, ranks):
    """M(s) from literal sets: every storage that some inserted location needs, once."""
    inserted = {k for k, rank in enumerate(ranks) if rank > 0}
    total = profile.constant_bytes + profile.transient_bytes
    for k in inserted:
        total += profile.rank_bytes[k] * ranks[k] + profile.fixed_bytes[k]
    for storage in profile.storages:
        if set(storage.needed_by) & inserted:
            total += storage.bytes
    return total


def sqrt_ln1p(rank, max_rank):
    """h(r) of TaskIT's Table 2, its numerator repaired as in `taskit.scheduler.gain`."""
    return math.sqrt(math.log(rank + 1)) / math.sqrt(math.log(max_rank + 1))


def objective(importance, ranks, max_rank):
    return math.fsum(sqrt_ln1p(r, max_rank) * value for r, value in zip(ranks, importance, strict=True))


def all_strategies(profile, importance, ranks):
    """Every strategy as (bytes, objective, ranks)."""
    for plan in itertools.product((0, *ranks), repeat=len(profile.locations)):
        yield union_bytes(profile, plan), objective(importance, plan, max(ranks)), plan
