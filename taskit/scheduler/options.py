"""What may be chosen at each location and block, with its bytes, parameters and values as whole numbers."""

from dataclasses import dataclass

import numpy as np

from taskit.scheduler.problem import Problem


@dataclass(frozen=True, slots=True)
class Option:
    """One rank that a location may get: bytes and parameters that it adds, and its value in whole quanta.

    `bytes` leaves out the storages, which locations share; `spared` is the part of it that is not kept where the
    location's block is recomputed. At a block rank 0 stands for keeping its inside and 1 for recomputing it.
    """

    rank: int
    bytes: int
    parameters: int
    gain: int
    spared: int = 0


SKIP = Option(0, 0, 0, 0)


def rank_options(problem: Problem, parameter_price: float = 0.0) -> list[list[Option]]:
    """Per entry of a plan its options: the locations, then the blocks that may be recomputed.

    A location has its ranks by rising bytes and strictly rising gain; the first is SKIP unless it is forced. A block
    is rewarded for being kept, since negative values stand for what cannot be reached (bins.py), by a quantum at
    least: none is recomputed for nothing.

    Values are counted in whole quanta, so that sums are associative: equal strategies tie exactly, and scaling
    all importances changes nothing.  `parameter_price` is taken off the value for every parameter.
    """
    values = problem.values - parameter_price * problem.parameters
    unit = value_unit(problem, values)
    quanta = np.rint(values / unit).astype(np.int64).tolist()
    found = []
    columns = (problem.bytes.tolist(), problem.parameters.tolist(), quanta, problem.spared.tolist())
    ranks = problem.ranks.tolist()
    for forced, *row in zip(problem.forced, *columns, strict=True):
        by_rank = list(map(Option, ranks, *row))
        choices = [by_rank[0] if forced else SKIP]
        for option in by_rank:
            if option.gain > choices[-1].gain:
                choices.append(option)
        found.append(choices)
    for block in problem.blocks:
        reward = max(round(block.keep_value / unit), 1)
        found.append([Option(0, 0, 0, reward), Option(1, 0, 0, 0)])
    return found


def value_unit(problem: Problem, values: np.ndarray) -> float:
    """Return what one quantum of gain is worth."""
    largest = max([np.abs(values).max(), *(block.keep_value for block in problem.blocks)]) or 1.0
    locations, ranks = values.shape
    if not problem.blocks:
        return largest * _quantum(locations, ranks)
    return largest * _quantum(locations + len(problem.blocks), 2 * ranks)


def _quantum(layers: int, options: int) -> float:
    """Return the unit in which values are counted, relative to the largest.

    A sum of values, shifted by the bits of a back-pointer (bins.py), has to stay below 2^62; this leaves a factor
    of 2.
    """
    return 2.0 ** -min(40, 56 - layers.bit_length() - (options + 1).bit_length())
