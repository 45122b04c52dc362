"""What an evaluation found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scores:
    """``value`` is the task's own metric: accuracy in 0..1, or cross-entropy per target token in nats.

    ``confusion[i][j]`` counts rows of class i that were taken for class j.  ``exact_match`` and
    ``rouge_l`` compare generated answers with the true ones, on the first evaluation rows.
    """

    value: float
    macro_f1: float | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    perplexity: float | None = None
    exact_match: float | None = None
    rouge_l: float | None = None

    @classmethod
    def from_dict(cls, values: dict) -> "Scores":
        confusion = values["confusion"]
        return cls(**{**values, "confusion": confusion and tuple(map(tuple, confusion))})
