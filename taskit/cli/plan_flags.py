"""The flags of `taskit plan`: the recipe, how importance is measured, and the constraints on a plan."""

import argparse
from typing import TYPE_CHECKING, Any

from taskit.backbone.sources import DTYPES
from taskit.cli.common import add_data, add_zoo
from taskit.errors import PlanError

if TYPE_CHECKING:
    from taskit.planning.recipe import Recipe
    from taskit.scheduler import Constraints


def add_plan(sub: argparse.ArgumentParser) -> None:
    """Give the verb all its flags."""
    add_data(sub)
    add_zoo(sub)
    sub.add_argument("--budget", required=True, help="6GiB, 800MiB, 60%% (from no update to full LoRA) or auto")
    add_measures(sub)
    sub.add_argument("--batch-size", type=int, metavar="N", help="rows of an optimizer step")
    sub.add_argument("--micro-batch", type=int, metavar="N", help="rows of it at once (default: what fits, planned)")
    sub.add_argument("--max-length", type=int, metavar="N", help="tokens after which a text is cut")
    sub.add_argument("--epochs", type=int, metavar="N", help="passes over the training rows")
    sub.add_argument("--learning-rate", type=float, metavar="X", help="peak of the schedule; by the ranks without it")
    sub.add_argument("--label-smoothing", type=float, metavar="X", help="0.1 takes a tenth of each label away")
    sub.add_argument("--mixup", type=float, metavar="ALPHA", help="blend images in pairs; 0.2 is usual")
    sub.add_argument("--cutmix", type=float, metavar="ALPHA", help="patch images with others; 1 is usual")
    sub.add_argument("--randaugment", type=int, metavar="M", help="distort images, by 0 to 30; 9 is usual")
    sub.add_argument("--patience", type=int, metavar="N", help="end after so many epochs without a better one")
    sub.add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help="of backbone and adapter (default %(default)s)"
    )
    sub.add_argument("--quantize", choices=("8bit", "4bit"), help="load the frozen backbone in fewer bits")
    sub.add_argument("--attention", choices=("sdpa", "eager"), help="its kernel (default: what Transformers prefers)")
    sub.add_argument(
        "--gradient-checkpointing",
        action=argparse.BooleanOptionalAction,
        help="recompute all blocks instead of keeping activations, or none (default: those that have to be)",
    )
    sub.add_argument("--shards", type=int, metavar="N", help="processes that share out the backbone (FSDP2)")
    sub.add_argument("--optimizer", choices=("adamw", "adamw8bit", "sgd"), help="default adamw")
    sub.add_argument("--out", required=True, metavar="plan.json", help="where to write the plan")
    sub.add_argument("--explain", action="store_true", help="say of every location why it got its rank or none")
    add_constraints(sub)


def recipe_of(options: argparse.Namespace) -> "Recipe":
    """The recipe with those settings that were given; the others keep its defaults."""
    from taskit.planning.recipe import Recipe

    names = (
        "batch_size",
        "micro_batch",
        "max_length",
        "epochs",
        "learning_rate",
        "gradient_checkpointing",
        "shards",
        "optimizer",
    )
    names += ("label_smoothing", "mixup", "cutmix", "randaugment", "patience")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    return Recipe(**{name: value for name, value in given.items() if value is not None})


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
    """Name to value as --method-option gives them; raises PlanError for what is not NAME=VALUE."""
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
