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

    An optimizer step takes ``batch_size`` rows, in ``gradient_accumulation`` micro-batches of ``micro_batch`` rows,
    the last of which may have fewer; naming one of the two names the other, and with None planning decides.
    ``max_length`` (tokens, text only) truncates.
    ``gradient_checkpointing`` recomputes all blocks in the backward pass, or the ``recomputed_blocks`` where these
    are named (paths in the backbone); with None, planning decides, and nothing else recomputes.
    A language model's logits are made for ``loss_chunk`` tokens at once; with None its own loss makes them all.
    ``rate_follows_ranks`` is set where ``learning_rate`` is what `rate` chose.
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
    micro_batch: int | None = None
    gradient_accumulation: int | None = None
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
    recomputed_blocks: tuple[str, ...] | None = None
    loss_chunk: int | None = None
    rate_follows_ranks: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "shards", "micro_batch", "gradient_accumulation", "loss_chunk"):
            value = getattr(self, name)
            planned = value is None and name not in ("epochs", "batch_size", "shards")
            if not planned and (type(value) is not int or value < 1):
                raise PlanError(f"{name} is {value}; give a whole number of at least 1.")
        self._settle_micro_batch()
        if self.recomputed_blocks is not None:
            object.__setattr__(self, "recomputed_blocks", tuple(self.recomputed_blocks))
            if bool(self.recomputed_blocks) != self.gradient_checkpointing:
                raise PlanError(
                    f"gradient_checkpointing is {self.gradient_checkpointing} and recomputed_blocks names "
                    f"{len(self.recomputed_blocks)} blocks; make them agree."
                )
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

    def _settle_micro_batch(self) -> None:
        """Find the size of a micro-batch from their number, or the other way round; raise where they disagree."""
        rows, size, count = self.batch_size, self.micro_batch, self.gradient_accumulation
        if size is None and count is None:
            return
        size = size or -(-rows // (count or 1))
        made = -(-rows // size)
        if size > rows:
            raise PlanError(f"micro_batch is {size}, more than the batch_size of {rows}; give at most that.")
        if (count or made) != made:
            raise PlanError(
                f"A batch_size of {rows} in micro-batches of {size} makes {made} of them, not {count}; mend one of "
                "the three, or leave gradient_accumulation out."
            )
        object.__setattr__(self, "micro_batch", size)
        object.__setattr__(self, "gradient_accumulation", made)

    def rate(self, ranks: Iterable[int]) -> float:
        """``learning_rate``, or what suits LoRA of ``ranks``: the more of them and the higher, the less.

        A step of Adam moves what a LoRA of scaling 1 adds by about the root of its rank (rsLoRA, Kalajdzievski 2023,
        takes that out of the scaling), and those of all locations add up as independent ones do: to the root of the
        sum of ranks.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return float(f"{min(FASTEST, RATE / max(sum(ranks), 1) ** 0.5):.2g}")  # as a person would write it

    @property
    def step(self) -> str:
        """How an optimizer step is taken, in words."""
        words = [f"{self.batch_size} rows"]
        if self.micro_batch not in (None, self.batch_size):
            words.append(f"{self.micro_batch} of them at once")
        if self.gradient_checkpointing:
            count = "all" if self.recomputed_blocks is None else len(self.recomputed_blocks)
            words.append(f"{count} blocks recomputed in the backward pass")
        if self.loss_chunk:
            words.append(f"logits of {self.loss_chunk} tokens at once")
        return ", ".join(words)

    def passing(self, micro_batch: int) -> "Recipe":
        """The same of which ``micro_batch`` rows pass through the model at once."""
        return replace(self, micro_batch=micro_batch, gradient_accumulation=None)

    def following(self, ranks: Iterable[int]) -> "Recipe":
        """The same after the ranks have changed: a rate that was chosen by ranks is chosen again."""
        if not self.rate_follows_ranks:
            return self
        return replace(self, learning_rate=replace(self, learning_rate=None).rate(ranks))
