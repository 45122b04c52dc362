"""What a run gave: `Result`, and the `Scores` of each of its evaluations; readable without PyTorch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskit.planning.recipe import Recipe


@dataclass(frozen=True, slots=True)
class HardRow:
    """A row that the model is bad at: its position among the evaluation rows, its cross-entropy in nats (of the mean
    target token, where a text is written), the true label or completion, and the model's answer; "" for none."""

    row: int
    loss: float
    label: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Scores:
    """``value`` is the task's own metric: accuracy in 0..1, or cross-entropy per target token in nats.

    ``confusion[i][j]`` counts rows of class i that were taken for class j.  ``exact_match`` and
    ``rouge_l`` compare generated answers with the true ones, on the first evaluation rows.  ``hardest`` are the
    rows with the highest loss, the worst one first.
    """

    value: float
    macro_f1: float | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    perplexity: float | None = None
    exact_match: float | None = None
    rouge_l: float | None = None
    hardest: tuple[HardRow, ...] = ()

    @classmethod
    def from_dict(cls, values: dict) -> "Scores":
        confusion = values["confusion"]
        hardest = tuple(HardRow(**row) for row in values.get("hardest", ()))
        return cls(**{**values, "confusion": confusion and tuple(map(tuple, confusion)), "hardest": hardest})


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave.  Bytes are ints; before and after are on the evaluation split, as are their details.

    ``imbalance`` is the largest class over the smallest one in the training rows, None without classes.
    ``discarded_energy`` is the part of ||dW||_F^2 that a method's export leaves out.
    ``batch_size`` rows made a step, ``micro_batch`` of them at once; ``recomputed_blocks`` and ``loss_chunk`` are
    those of the plan (`taskit.planning.recipe.Recipe`).  None in the results of an earlier version.
    """

    metric: str
    before: float
    after: float
    predicted_peak_bytes: int
    measured_peak_bytes: int
    measured_with: str
    train_seconds: float
    steps: int
    trainable_parameters: int
    best_epoch: int
    processes: int = 1
    imbalance: float | None = None
    details_before: Scores | None = None
    details_after: Scores | None = None
    discarded_energy: float = 0.0
    batch_size: int | None = None
    micro_batch: int | None = None
    recomputed_blocks: tuple[str, ...] | None = None
    loss_chunk: int | None = None

    @classmethod
    def from_dict(cls, values: dict) -> "Result":
        details, blocks = ("details_before", "details_after"), values.get("recomputed_blocks")
        values = {**values, "recomputed_blocks": None if blocks is None else tuple(blocks)}
        return cls(**{**values, **{name: Scores.from_dict(values[name]) for name in details if values.get(name)}})


def step_of(recipe: "Recipe") -> dict[str, Any]:
    """What a result keeps of how a step was taken."""
    return {name: getattr(recipe, name) for name in ("batch_size", "micro_batch", "recomputed_blocks", "loss_chunk")}
