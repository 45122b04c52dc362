"""Who shares whose LoRA (Pear, steps 3 and 4): the worst of each shape take over from its best, rank to rank."""

from collections.abc import Mapping, Sequence

from taskit.step.parametrization import Ranks

Shape = tuple[int, int]  # (in, out)


def classes_of(shapes: Mapping[str, Shape], ranks: Ranks) -> list[list[str]]:
    """The inserted locations that can share, those of equal shape and rank, each class in the order of ``ranks``."""
    classes: dict[tuple[Shape, int], list[str]] = {}
    for name, rank in ranks.items():
        if rank:
            classes.setdefault((shapes[name], rank), []).append(name)
    return list(classes.values())


def match(scores: Mapping[str, float], ratio: float) -> dict[str, str]:
    """Pruned location -> the kept one whose LoRA it shares, for one class.

    The floor(ratio n) lowest scores are pruned, and the highest of them gets the LoRA of the highest of all; where
    more are pruned than kept, the kept ones are gone through again.  Ties fall by position.

    >>> match({"a": 0.1, "b": 0.5, "c": 0.2, "d": 0.3, "e": 0.9, "f": 0.7}, 0.5)
    {'d': 'e', 'c': 'f', 'a': 'b'}
    """
    ranked = sorted(scores, key=lambda name: -scores[name])
    count = int(ratio * len(ranked))
    kept, pruned = ranked[: len(ranked) - count], ranked[len(ranked) - count :]
    return {name: kept[i % len(kept)] for i, name in enumerate(pruned)}


def pruned_count(names: Sequence[str], ratio: float) -> int:
    """How many of a class are pruned."""
    return int(ratio * len(names))
