"""What an evaluation found."""

from dataclasses import dataclass


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
