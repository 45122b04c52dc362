"""CDRA-SPT (CVPR 2025): LoRA on compact blocks, the rows and columns of a matrix that the new task is sensitive to.

The sensitivity of every entry is Eq. (3), the share gamma of most sensitive entries of all matrices
makes the masks m, and the rank of a block of d_ rows and k_ columns in a d x k matrix is Eq. (7),

    r = floor( sum(m) d_ k_ / ((d_ + k_) d k) )

The paper does not give gamma: unless a person does, it is the largest of GAMMAS that fits the budget.  Our readings:
vectors are not tuned, scaling is 1; where TaskIT chooses the ranks, a block is that of the least gamma at which
Eq. (7) grants the rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from taskit.errors import PlanError
from taskit.memory.profile import MemoryProfile
from taskit.methods.blocks import Block, Granted, granted_blocks
from taskit.methods.method import MethodContext, Option, Options, ResolvedMethod, at_least, chosen_by
from taskit.scheduler import Constraints, Schedule, objective
from taskit.scheduler.constraints import ANY
from taskit.step.parametrization import Parametrization, Ranks

GAMMAS = (*(round(0.005 * 1.25**k, 6) for k in range(24)), 1.0)


Table = Mapping[str, tuple[Granted, ...]]  # location -> one for each gamma


@dataclass(frozen=True, slots=True)
class Cdra:
    """Ranks by Eq. (7), or chosen by importance as TaskIT does."""

    name: str
    by_importance: bool = False

    @property
    def options(self) -> Mapping[str, Option]:
        if self.by_importance:
            return {}
        share = Option(0.0, "a number from 0, for the largest that fits, to 1", lambda value: 0 <= value <= 1)
        return {"gamma": share, "min_rank": at_least(0, 0)}

    @property
    def explanation(self) -> str:
        return (
            "CDRA looks at which single weights of the model the new task would change most, and puts a small LoRA "
            "only on the rows and columns where those weights lie. It trains fewer parameters than a LoRA on whole "
            "matrices, and needs about the same memory for activations. "
            + (
                "Here TaskIT chooses the matrices and their ranks."
                if self.by_importance
                else "So few weights may want a higher learning rate than the usual one."
            )
        )

    def resolve(self, context: MethodContext, given: Options) -> ResolvedMethod:
        gammas = (given["gamma"],) if given.get("gamma") else GAMMAS
        table = granted_blocks(context, gammas)
        if self.by_importance:
            return ResolvedMethod(**chosen_by(importance=True), options=partial(_options_by_rank, table))
        solve = DynamicRank(table, gammas, given["min_rank"])
        if not any(map(any, solve.strategies(ANY, list(table), [0] * len(table)))):
            raise PlanError(
                f"With gamma {gammas[-1]:g} Eq. 7 gives rank 0 everywhere, since too few entries are sensitive; "
                "give a larger gamma, --method-option min_rank=1, or leave gamma out to let the budget choose."
            )
        return ResolvedMethod(solve, partial(_options_by_gamma, solve))

    def parametrization(self, options: Options) -> Parametrization:
        from taskit.methods.compact import Compact

        return Compact({name: Block.from_json(value) for name, value in options["blocks"].items()})


@dataclass(frozen=True, slots=True)
class DynamicRank:
    """The strategy of the largest gamma that fits; called as `taskit.scheduler.schedule`."""

    table: Table
    gammas: Sequence[float]
    min_rank: int

    def __call__(
        self,
        profile: MemoryProfile,
        importance: Sequence[float],
        budget_bytes: int,
        *,
        constraints: Constraints = ANY,
        gain: str = "sqrt_ln1p",
        rank_parameters: Sequence[int] | None = None,  # noqa: ARG002 - a block has fewer than a rank times its matrix
        rank_limits: Sequence[int] | None = None,  # noqa: ARG002 - Eq. (7) bounds ranks by itself
    ) -> Schedule:
        """Raises PlanError where the constraints name ranks, which Eq. (7) finds itself."""
        if constraints.common_rank or constraints.ranks != ANY.ranks:
            raise PlanError(
                "cdra finds the ranks by itself; leave --ranks and --common-rank out, or use taskit+cdra."
            )
        tried = self.strategies(constraints, profile.locations, profile.blocks)
        best = constraints.least_ranks(profile.locations, profile.blocks)
        for gamma, ranks in enumerate(tried):
            most = constraints.max_parameters
            fits = profile.bytes(ranks) <= budget_bytes and (most is None or self.parameters(gamma, ranks) <= most)
            if fits and any(ranks):
                best = ranks
        cheapest = next((ranks for ranks in tried if any(ranks)), best)
        missing = 0 if any(best) else max(0, profile.bytes(cheapest) - budget_bytes)
        top = max(constraints.ranks[-1], *best)
        return Schedule(tuple(best), objective(best, importance, top, gain), profile.bytes(best), missing)

    def strategies(
        self, constraints: Constraints, names: Sequence[str], blocks: Sequence[int]
    ) -> list[tuple[int, ...]]:
        """The ranks of all locations, for each gamma."""
        candidates = constraints.candidates(names, blocks)
        return [
            tuple(
                0 if one.barred else max(self._rank(name, gamma), 1 if one.forced_by else 0)
                for name, one in zip(names, candidates, strict=True)
            )
            for gamma in range(len(self.gammas))
        ]

    def parameters(self, gamma: int, ranks: Sequence[int]) -> int:
        blocks = [self.table[name][gamma].block for name in self.table]
        return sum(rank * (block.row_count + block.column_count) for rank, block in zip(ranks, blocks, strict=True))

    def _rank(self, name: str, gamma: int) -> int:
        granted = self.table[name][gamma]
        return max(granted.rank, self.min_rank) if granted.block.row_count else 0


def _options_by_gamma(solve: DynamicRank, ranks: Ranks) -> Options:
    """The blocks of the least gamma that grants ``ranks``."""
    names = [name for name, rank in ranks.items() if rank]
    found = range(len(solve.gammas))
    gamma = next((g for g in found if all(solve._rank(name, g) >= ranks[name] for name in names)), found[-1])
    blocks = {name: solve.table[name][gamma].block.to_json() for name in names}
    return {"gamma": solve.gammas[gamma], "min_rank": solve.min_rank, "blocks": blocks}


def _options_by_rank(table: Table, ranks: Ranks) -> Options:
    chosen = {}
    for name, rank in ranks.items():
        if rank:
            wide_enough = (one.block for one in table[name] if one.rank >= rank)
            chosen[name] = next(wide_enough, table[name][-1].block).to_json()
    return {"blocks": chosen}
