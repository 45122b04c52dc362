"""How long a step takes beside another one that trains the same: what orders the exact levers until time is foretold.

Rough, from a first measurement on MiniLM, one thread, 32 rows of 48 tokens, LoRA r = 8 everywhere; newer figures are
in benchmarks/levers.py.  Each forward and backward pass costs something whatever its size, and recomputing all blocks
takes another forward pass.
"""

from taskit.memory.conditions import BatchShape

BUSY = 0.93  # of the time of one pass of 32 rows, were a pass itself free
PASS_TOKENS = 29  # a pass itself costs as much as so many tokens in it
RECOMPUTED = 0.45  # of the same, where all blocks are recomputed
IMAGE_TOKENS = 48  # of an image that is classified, whose patches a batch does not tell


def pass_time(batch: BatchShape) -> float:
    """Relative time of a step in micro-batches of this shape, nothing recomputed."""
    tokens = next((shape[1] for name, shape, _ in batch.tensors if name == "input_ids"), IMAGE_TOKENS)
    return BUSY * (1 + PASS_TOKENS / (batch.rows * tokens))


def block_time(blocks: int) -> float:
    """What recomputing one of ``blocks`` adds."""
    return RECOMPUTED / blocks
