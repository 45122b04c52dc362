"""How a plan is trained: everything but the strategy and the data."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from taskit.errors import PlanError
from taskit.step.step import OPTIMIZERS

MAGNITUDES = 30  # of RandAugment, as in its paper
RATE = 0.05  # times 1 / root of the sum of ranks: the rates that validation rows choose in benchmarks/accuracy.py
FASTEST = 4.5e-3  # the highest that it tries


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyper-parameters of a run; ``learning_rate`` is the peak of a warm-up and cosine schedule, None for `rate`'s.

    ``batch_size`` rows pass through the model at once; an optimizer step takes
    ``gradient_accumulation`` such batches.  ``max_length`` (tokens, text only) truncates.
    ``gradient_checkpointing`` recomputes blocks in the backward pass; with None, planning decides, and nothing else
    recomputes.
    ``label_smoothing`` (0 to 1) is for classifiers, ``mixup`` and ``cutmix`` (the parameter alpha of their beta
    distribution, 0 for off) for images; where both are on, each step draws one of them.  ``randaugment`` is the
    magnitude (0 for off, to 30) by which training images are distorted.
    ``shards`` processes share out the frozen backbone among them; with 1 each holds it whole.
    ``patience`` epochs without a better one end the run; a checkpoint is written every ``checkpoint_seconds``.

    Raises:
        PlanError: a value that cannot be trained with.
    """

    epochs: int = 10
    batch_size: int = 16
    gradient_accumulation: int = 1
    max_length: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup: float = 0.06
    optimizer: str = "adamw"
    gradient_checkpointing: bool | None = None
    shards: int = 1
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: int = 0
    patience: int | None = None
    checkpoint_seconds: float = 20.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "gradient_accumulation", "shards"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise PlanError(f"{name} is {value}; give a whole number of at least 1.")
        if not 0 <= self.label_smoothing < 1:
            raise PlanError(f"label_smoothing is {self.label_smoothing}; give a number from 0 to below 1.")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) <= 10:
                raise PlanError(f"{name} is {getattr(self, name)}; give an alpha from 0, for off, to 10.")
        if type(self.randaugment) is not int or not 0 <= self.randaugment <= MAGNITUDES:
            raise PlanError(f"randaugment is {self.randaugment}; give a whole number from 0, for off, to 30.")
        if self.patience is not None and (type(self.patience) is not int or self.patience < 1):
            raise PlanError(f"patience is {self.patience}; give a whole number of epochs of at least 1, or none.")
        if self.max_length is not None and self.max_length < 4:
            raise PlanError(f"max_length is {self.max_length}; give at least 4 tokens.")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise PlanError(f"learning_rate is {self.learning_rate}; give a number between 0 and 1.")
        if self.optimizer not in OPTIMIZERS:
            raise PlanError(f"The optimizer {self.optimizer!r} is unknown; choose one of {', '.join(OPTIMIZERS)}.")

    def rate(self, ranks: Iterable[int]) -> float:
        """``learning_rate``, or what suits LoRA of ``ranks``: the more of them and the higher, the less.

        A step of Adam moves what a LoRA of scaling 1 adds by about the root of its rank (rsLoRA, Kalajdzievski 2023,
        takes that out of the scaling), and those of all locations add up as independent ones do: to the root of the
        sum of ranks.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return float(f"{min(FASTEST, RATE / max(sum(ranks), 1) ** 0.5):.2g}")  # as a person would write it

    def decided(self, ranks: Iterable[int], gradient_checkpointing: bool) -> "Recipe":
        """The recipe with nothing left open, for a plan of ``ranks``."""
        return replace(self, learning_rate=self.rate(ranks), gradient_checkpointing=gradient_checkpointing)
