"""Who needs which storage, and on which block's decision that depends."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from taskit.memory.profile import MemoryProfile


@dataclass(frozen=True, slots=True)
class BlockChoice:
    """A block that may be recomputed, as the search sees it.

    Args:
        index: into `MemoryProfile.recomputable`.
        first, end: its locations are `first <= k < end`, as indices into `Problem.locations`.
        time: what recomputing it adds to the step.
        keep_value: what keeping its inside is worth, in the unit of `Problem.values`.
    """

    index: int
    first: int
    end: int
    time: float
    keep_value: float


def coverage(profile: MemoryProfile) -> tuple[np.ndarray, np.ndarray]:
    """Return who needs what, bool of shape (locations, storages), and the storages' bytes, int64."""
    sizes = np.array([storage.bytes for storage in profile.storages], np.int64)
    readers = [len(storage.needed_by) for storage in profile.storages]
    rows = np.fromiter(chain.from_iterable(s.needed_by for s in profile.storages), np.intp, sum(readers))
    needs = np.zeros((len(profile.locations), len(sizes)), bool)
    needs[rows, np.repeat(np.arange(len(sizes)), readers)] = True
    return needs, sizes


def block_choices(
    profile: MemoryProfile, locations: np.ndarray, times: Sequence[float], prices: Sequence[float]
) -> tuple[BlockChoice, ...]:
    """The blocks in or above which something may be inserted; below that nothing is kept anyway."""
    found = []
    for index, (time, price) in enumerate(zip(times, prices, strict=True)):
        block = profile.recomputable[index]
        first, end = np.searchsorted(locations, (block.first, block.last + 1)).tolist()
        if end:
            found.append(BlockChoice(index, first, end, time, price))
    return tuple(found)


def storages_of(
    profile: MemoryProfile, locations: np.ndarray, blocks: Sequence[BlockChoice]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return needs, sizes, home and inputs of `Problem`: the profile's storages, then the input of every block."""
    needs, sizes = coverage(profile)
    choice_of = {block.index: b for b, block in enumerate(blocks)}
    home = [choice_of.get(-1 if storage.block is None else storage.block, -1) for storage in profile.storages]
    ends = np.array([block.end for block in blocks], int)
    below = np.arange(len(locations))[:, None] < ends
    return (
        np.hstack([needs[locations], below]),
        np.append(sizes, np.array([profile.recomputable[block.index].input_bytes for block in blocks], np.int64)),
        np.array([*home, *range(len(blocks))], int),
        np.arange(len(sizes) + len(blocks)) >= len(sizes),
    )
