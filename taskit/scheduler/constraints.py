"""What a strategy may look like, beside the memory that it needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from taskit.errors import PlanError
from taskit.scheduler.gain import RANKS


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the constraints require of one location: the reason why it is barred, the glob that forces it in."""

    barred: str = ""
    forced_by: str = ""


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a user requires of a strategy; globs are matched against whole location names, letter case included.

    Args:
        ranks: R, the ranks that an inserted location may get; kept sorted and without repetition.
        common_rank: give all inserted locations one rank, for readers that ignore PEFT's `rank_pattern`.
        max_parameters: upper bound of the trained parameters.
        include: locations that match one of these globs are inserted, whatever they are worth.
        exclude: locations that match one of these globs are not.
        last_blocks: insert nothing more than this many blocks back from the output, so that the backward pass is
            short.
        vision_tower: locations of a vision-language model's encoder of images are candidates too.

    Raises:
        PlanError: a value that no strategy can meet.

    >>> Constraints(ranks=(8, 4, 8)).ranks
    (4, 8)
    """

    ranks: tuple[int, ...] = RANKS
    common_rank: bool = False
    max_parameters: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    last_blocks: int | None = None
    vision_tower: bool = False

    def __post_init__(self) -> None:
        if not self.ranks:
            raise PlanError(f"The rank set is empty; give at least one rank, for example {RANKS}.")
        if any(type(rank) is not int or rank < 1 for rank in self.ranks):
            wrong = next(rank for rank in self.ranks if type(rank) is not int or rank < 1)
            raise PlanError(
                f"The rank set holds {wrong}; give whole ranks of 1 or more (0, no insertion, is implied)."
            )
        if self.max_parameters is not None and self.max_parameters < 1:
            raise PlanError(f"At most {self.max_parameters} trained parameters train nothing; give 1 or more.")
        if self.last_blocks is not None and self.last_blocks < 1:
            raise PlanError(f"The last {self.last_blocks} blocks hold no location; give 1 block or more.")
        object.__setattr__(self, "ranks", tuple(sorted(set(self.ranks))))

    def candidates(self, names: Sequence[str], blocks: Sequence[int]) -> tuple[Candidate, ...]:
        """Return what these constraints require of every location; `blocks` holds the block index of each of `names`.

        Raises:
            PlanError: a glob matches nothing, a location is both forced in and barred, or none is left.
        """
        for glob in (*self.include, *self.exclude):
            if not any(fnmatchcase(name, glob) for name in names):
                raise PlanError(f"No location matches {glob!r}; write for example '*{names[-1].rpartition('.')[2]}'.")
        near = sorted(set(blocks))[-self.last_blocks :] if self.last_blocks else blocks
        found = []
        for name, block in zip(names, blocks, strict=True):
            left_out = next((glob for glob in self.exclude if fnmatchcase(name, glob)), "")
            barred = f"it matches {left_out}, which is excluded" if left_out else ""
            if block not in near:
                barred = f"it lies more than {self.last_blocks} blocks back from the output"
            forced_by = next((glob for glob in self.include if fnmatchcase(name, glob)), "")
            if barred and forced_by:
                raise PlanError(f"{name} is forced in by {forced_by!r}, but {barred}; drop one of the two.")
            found.append(Candidate(barred, forced_by))
        if all(candidate.barred for candidate in found):
            raise PlanError(f"The constraints bar all {len(found)} locations; exclude fewer.")
        return tuple(found)

    def least_ranks(self, names: Sequence[str], blocks: Sequence[int]) -> tuple[int, ...]:
        """Return the smallest strategy: the lowest rank where insertion is forced, nothing elsewhere."""
        return tuple(self.ranks[0] if one.forced_by else 0 for one in self.candidates(names, blocks))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Constraints":
        """Rebuild constraints from their fields, also after a trip through a file (lists for tuples)."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)


ANY = Constraints()  # of the paper's rank set, and nothing else
