"""The ranks worth considering at each location, with their bytes, parameters and values as whole numbers."""

from dataclasses import dataclass

import numpy as np

from taskit.scheduler.problem import Problem


@dataclass(frozen=True, slots=True)
class Option:
    """One rank that a location may get: bytes and parameters that it adds, and its value in whole quanta.

    `bytes` leaves out the storages, which locations share.
    """

    rank: int
    bytes: int
    parameters: int
    gain: int


SKIP = Option(0, 0, 0, 0)


def rank_options(problem: Problem, parameter_price: float = 0.0) -> list[list[Option]]:
    """Per location the ranks by rising bytes and strictly rising gain; the first is SKIP unless it is forced.

    Values are counted in whole quanta, so that sums are associative: equal strategies tie exactly, and scaling
    all importances changes nothing.  `parameter_price` is taken off the value for every parameter.
    """
    values = problem.values - parameter_price * problem.parameters
    quanta = np.rint(values / ((np.abs(values).max() or 1.0) * _quantum(*values.shape))).astype(np.int64)
    found = []
    rows = zip(problem.forced, problem.bytes.tolist(), problem.parameters.tolist(), quanta.tolist(), strict=True)
    ranks = problem.ranks.tolist()
    for forced, sizes, parameters, gains in rows:
        choices = [Option(ranks[0], sizes[0], parameters[0], gains[0]) if forced else SKIP]
        for option in map(Option, ranks, sizes, parameters, gains):
            if option.gain > choices[-1].gain:
                choices.append(option)
        found.append(choices)
    return found


def _quantum(locations: int, ranks: int) -> float:
    """Return the unit in which values are counted, relative to the largest.

    A sum of values, shifted by the bits of a back-pointer (bins.py), has to stay below 2^62; this leaves a factor
    of 2.
    """
    return 2.0 ** -min(40, 56 - locations.bit_length() - (ranks + 1).bit_length())
