"""The ranks worth considering at each location, with their bytes, parameters and values as whole numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from taskit.memory.profile import MemoryProfile


@dataclass(frozen=True, slots=True)
class Option:
    """One rank that a location may get: its own bytes and parameters, and its value in whole quanta."""

    rank: int
    bytes: int
    parameters: int
    gain: int


SKIP = Option(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Problem:
    """The scheduler's problem over the locations that may be inserted, in forward order.

    Args:
        places: their indices in the profile, shape (locations,).
        forced: which of them have to be inserted, bool (locations,).
        needs: who needs which storage, bool (locations, storages).
        sizes: bytes of the storages, int64 (storages,).
        ranks: R, rising, shape (ranks,).
        bytes: own bytes of each rank, int64 (locations, ranks).
        parameters: the same for trained parameters.
        values: h(r) * lambda relative to the largest lambda, float64 (locations, ranks).
        max_parameters: bound of their sum, or None.
    """

    places: np.ndarray
    forced: np.ndarray
    needs: np.ndarray
    sizes: np.ndarray
    ranks: np.ndarray
    bytes: np.ndarray
    parameters: np.ndarray
    values: np.ndarray
    max_parameters: int | None

    def options(self, parameter_price: float = 0.0) -> list[list[Option]]:
        """Per location the ranks by rising bytes and strictly rising gain; the first is SKIP unless it is forced.

        Values are counted in whole quanta, so that sums are associative: equal strategies tie exactly, and scaling
        all importances changes nothing.  `parameter_price` is taken off the value for every parameter.
        """
        values = self.values - parameter_price * self.parameters
        quanta = np.rint(values / ((np.abs(values).max() or 1.0) * _quantum(*values.shape))).astype(np.int64)
        found = []
        rows = zip(self.forced, self.bytes.tolist(), self.parameters.tolist(), quanta.tolist(), strict=True)
        ranks = self.ranks.tolist()
        for forced, sizes, parameters, gains in rows:
            choices = [Option(ranks[0], sizes[0], parameters[0], gains[0]) if forced else SKIP]
            for option in map(Option, ranks, sizes, parameters, gains):
                if option.gain > choices[-1].gain:
                    choices.append(option)
            found.append(choices)
        return found

    @property
    def least_ranks(self) -> list[int]:
        """The lowest rank where insertion is forced, nothing elsewhere."""
        return np.where(self.forced, self.ranks[0], 0).tolist()

    @property
    def cheapest_insertion(self) -> list[int]:
        """The smallest ranks that insert anything of worth: one location, unless some are forced in."""
        if self.forced.any():
            return self.least_ranks
        fewest = np.where(self.values > 0, self.bytes, np.iinfo(np.int64).max // 2)
        price = fewest.min(axis=1) + self.needs @ self.sizes
        if self.max_parameters is not None:
            price[self.parameters[:, 0] > self.max_parameters] = np.iinfo(np.int64).max
        k = int(price.argmin())
        return [int(self.ranks[fewest[k].argmin()]) if i == k else 0 for i in range(len(price))]

    @property
    def span_bytes(self) -> int:
        """Bytes of the largest rank everywhere, above the empty strategy."""
        return int(self.bytes[:, -1].sum() + self.sizes[self.needs.any(axis=0)].sum())

    def bytes_of(self, ranks: Sequence[int]) -> int:
        """Bytes of one rank per location above the empty strategy, over the exact union."""
        chosen = np.array(ranks)
        rows = np.flatnonzero(chosen)
        own = self.bytes[rows, np.searchsorted(self.ranks, chosen[rows])].sum()
        return int(own + self.sizes[self.needs[rows].any(axis=0)].sum())

    def value_of(self, ranks: Sequence[int]) -> float:
        """Value of one rank per location, relative to the largest importance."""
        chosen = np.array(ranks)
        rows = np.flatnonzero(chosen)
        return math.fsum(self.values[rows, np.searchsorted(self.ranks, chosen[rows])].tolist())

    def parameters_of(self, ranks: Sequence[int]) -> int:
        """Parameters that one rank per location trains."""
        chosen = np.array(ranks)
        rows = np.flatnonzero(chosen)
        return int(self.parameters[rows, np.searchsorted(self.ranks, chosen[rows])].sum())


def coverage(profile: MemoryProfile) -> tuple[np.ndarray, np.ndarray]:
    """Return who needs what, bool of shape (locations, storages), and the storages' bytes, int64."""
    sizes = np.array([storage.bytes for storage in profile.storages], np.int64)
    readers = [len(storage.needed_by) for storage in profile.storages]
    rows = np.fromiter(chain.from_iterable(s.needed_by for s in profile.storages), np.intp, sum(readers))
    needs = np.zeros((len(profile.locations), len(sizes)), bool)
    needs[rows, np.repeat(np.arange(len(sizes)), readers)] = True
    return needs, sizes


def _quantum(locations: int, ranks: int) -> float:
    """Return the unit in which values are counted, relative to the largest.

    A sum of values, shifted by the bits that number a way (bins.py), has to stay below 2^62; this leaves a factor
    of 2.
    """
    return 2.0 ** -min(40, 56 - locations.bit_length() - (ranks + 1).bit_length())
