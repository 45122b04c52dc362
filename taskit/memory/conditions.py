"""What a training step looks like apart from the strategy: micro-batches, optimizer, recomputed blocks, loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CUDA_BLOCK = 512  # kMinBlockSize of PyTorch's caching allocator


@dataclass(frozen=True, slots=True)
class BatchShape:
    """Name, shape and dtype of every tensor of the longest batch the data can produce.

    A batch of images with text is ``known``: the numbers in it decide what the model does with it.  Whole numbers are
    kept as bytes; of pixels only whether an image of zeros pads a row that has fewer of them.
    """

    tensors: tuple[tuple[str, tuple[int, ...], str], ...]
    known: tuple[tuple[str, bytes], ...] = ()
    learned: int | None = None  # tokens that the loss counts, at most; None where it counts rows

    @classmethod
    def of(cls, batch: "Mapping[str, torch.Tensor]", learned: int | None = None) -> "BatchShape":
        shapes = tuple((k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in batch.items())
        if not {"pixel_values", "input_ids"} <= batch.keys():
            return cls(shapes, learned=learned)
        padded = {**batch, "attention_mask": _padded(batch["attention_mask"])}
        return cls(shapes, tuple((name, _content(tensor)) for name, tensor in padded.items()), learned)

    @property
    def numbers(self) -> int:
        """How many numbers the batch holds."""
        return sum(prod(shape) for _, shape, _ in self.tensors)

    @property
    def rows(self) -> int:
        return self.tensors[0][1][0]

    def with_rows(self, rows: int) -> "BatchShape":
        """The same batch with another number of rows; where it is known, its first row so many times.

        Raises RuntimeError for a known batch whose rows have images of several sizes.
        """
        learned = None if self.learned is None else -(-self.learned * rows // self.rows)
        if not self.known:
            shapes = tuple((name, (rows, *shape[1:]), dtype) for name, shape, dtype in self.tensors)
            return BatchShape(shapes, learned=learned)
        if any(shape[0] % self.rows for _, shape, _ in self.tensors):
            raise RuntimeError("rows with images of several sizes cannot be separated in a batch")
        shapes = tuple(
            (name, (shape[0] // self.rows * rows, *shape[1:]), dtype) for name, shape, dtype in self.tensors
        )
        known = tuple((name, content[: len(content) // self.rows] * rows) for name, content in self.known)
        return BatchShape(shapes, known, learned)

    def empty(self) -> "dict[str, torch.Tensor]":
        """A batch of this shape, of zeros where it is not known: real, or on meta inside ``simulated_device``."""
        import torch

        known = dict(self.known)
        return {
            name: _filled(known[name], shape, getattr(torch, dtype))
            if name in known
            else torch.zeros(shape, dtype=getattr(torch, dtype))
            for name, shape, dtype in self.tensors
        }


def _padded(mask: "torch.Tensor") -> "torch.Tensor":
    """A mask (rows, tokens) with a padded token: rows of another batch differ, and one without any is dropped."""
    if len(mask) > 1 and mask.all():
        mask = mask.clone()
        mask[-1, -1] = 0
    return mask


def _content(tensor: "torch.Tensor") -> bytes:
    if tensor.is_floating_point():
        tensor = (tensor != 0).flatten(min(2, tensor.ndim - 1)).any(-1)
    return tensor.cpu().contiguous().numpy().tobytes()


def _filled(content: bytes, shape: tuple[int, ...], dtype: "torch.dtype") -> "torch.Tensor":
    """Undo ``_content``: pixels are 1 where an image is."""
    import torch

    if not dtype.is_floating_point:
        return torch.frombuffer(bytearray(content), dtype=dtype).view(shape).clone()
    present = torch.frombuffer(bytearray(content), dtype=torch.bool)
    lead = shape[: min(2, len(shape) - 1)]
    return present.view(*lead, *(1 for _ in shape[len(lead) :])).expand(shape).to(dtype)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The rest of a step.

    Attributes:
        batch: a micro-batch, the longest that training can meet; ``gradient_accumulation`` of them make a step.
        evaluation: the longest batch of an evaluation between two epochs, None for none.
        recomputed: the blocks that ``gradient_checkpointing`` recomputes, None for all.
        loss_chunk: tokens whose logits are made at once (`taskit.step.loss`), None for the model's own loss.
        optimizer: one of taskit.step.step.OPTIMIZERS.
        device: where the run trains, "cpu" or "cuda"; decides which kernels are taken.
        on_numbers: take the step on real tensors of this machine's memory, all zero, instead of on meta.
        runtime_bytes: what the device's libraries keep allocated beside all tensors.
    """

    batch: BatchShape
    optimizer: str = "adamw"
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    device: str = "cpu"
    runtime_bytes: int = 0
    on_numbers: bool = False
    evaluation: BatchShape | None = None
    recomputed: tuple[str, ...] | None = None
    loss_chunk: int | None = None

    @property
    def granularity(self) -> int:
        """The least number of bytes that the device's allocator hands out; a CPU's live storages are exact."""
        return CUDA_BLOCK if self.device == "cuda" else 1
