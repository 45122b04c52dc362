"""The flags of `taskit plan` that say how importance is found, and what a plan may look like beside its memory."""

import argparse
from typing import TYPE_CHECKING

from taskit.errors import PlanError

if TYPE_CHECKING:
    from taskit.scheduler import Constraints


def add_measures(sub: argparse.ArgumentParser) -> None:
    """Give the verb the choices of method, similarity and importance."""
    from taskit.methods import METHODS

    sub.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="taskit",
        help="how to train: taskit (default) or another one that `taskit methods` explains",
    )
    sub.add_argument(
        "--method-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the method, as experts=3; may be repeated",
    )
    sub.add_argument(
        "--similarity",
        choices=("trial", "fisher", "gradient", "delta", "raw"),
        default="trial",
        help="with a short trial (default), by Fisher information, with the gradient by weights or by features, or "
        "the paper's raw one",
    )
    sub.add_argument(
        "--importance",
        choices=("blend", "ratio", "absolute", "l2"),
        default="blend",
        help="of learned tasks and the trial (default), or of learned tasks as in the paper's Eq. 3 and Table 7",
    )


def method_options_of(options: argparse.Namespace) -> dict[str, str]:
    """Raises PlanError for one that is no NAME=VALUE."""
    pairs = [item.partition("=") for item in options.method_option]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise PlanError(f"--method-option {name}{equals}{value} is not understood; write for example experts=3.")
    return {name: value for name, _, value in pairs}


def add_constraints(sub: argparse.ArgumentParser) -> None:
    """Give the verb its flags; `constraints_of` reads them."""
    sub.add_argument("--gain", default="sqrt_ln1p", metavar="FORM", help="the form of h(r) (default %(default)s)")
    sub.add_argument("--ranks", metavar="4,8,16", help="the ranks to choose from (default: powers of 2 up to 64)")
    sub.add_argument("--common-rank", action="store_true", help="give all inserted locations one rank")
    sub.add_argument("--max-parameters", type=int, metavar="N", help="train at most N parameters, heads included")
    for flag, what in (("--include", "insert a LoRA at"), ("--exclude", "leave out")):
        sub.add_argument(
            flag,
            action="append",
            default=[],
            metavar="GLOB",
            help=f"{what} every location whose name matches, as in '*.q_proj'; may be repeated",
        )
    sub.add_argument("--last-blocks", type=int, metavar="B", help="insert nothing more than B blocks from the output")
    sub.add_argument(
        "--vision-tower", action="store_true", help="of a model that sees: choose in its encoder of images too"
    )


def constraints_of(options: argparse.Namespace) -> "Constraints":
    """The constraints that the flags of `add_constraints` ask for.

    Raises:
        PlanError: ranks that are no numbers, or a bound that nothing can meet.
    """
    from taskit.scheduler import RANKS, Constraints

    try:
        ranks = tuple(int(rank) for rank in options.ranks.split(",")) if options.ranks else RANKS
    except ValueError:
        raise PlanError(f"--ranks {options.ranks} is not understood; write for example 4,8,16.") from None
    return Constraints(
        ranks=ranks,
        common_rank=options.common_rank,
        max_parameters=options.max_parameters,
        include=tuple(options.include),
        exclude=tuple(options.exclude),
        last_blocks=options.last_blocks,
        vision_tower=options.vision_tower,
    )
