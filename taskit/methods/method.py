"""What a method is: how it explains itself, what it decides while a plan is made, and how it parametrizes LoRA."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from taskit.errors import PlanError
from taskit.scheduler import Schedule, schedule, schedule_uniform
from taskit.step.parametrization import Parametrization, Ranks

if TYPE_CHECKING:
    from taskit.backbone.target_modules import Location
    from taskit.transfer.probe_context import ProbeContext
    from taskit.transfer.similarity import TaskSimilarity
    from taskit.zoo.zoo import Zoo

Options = Mapping[str, Any]  # JSON: what plan.json keeps as method_options
Solve = Callable[..., Schedule]  # called as `taskit.scheduler.schedule`


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of a method; ``expects`` ends the sentence that refuses a value which it does not ``admit``."""

    default: Any
    expects: str
    admits: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class MethodContext:
    """What a method may look at while a plan is made: the model frozen with its weights, the probe, the zoo."""

    probe_context: "ProbeContext"
    places: "tuple[Location, ...]"
    zoo: "Zoo"
    zoo_source: str | None
    similarity: "tuple[TaskSimilarity, ...]"
    heads: tuple[str, ...]
    seed: int


def chosen_by(importance: bool) -> dict[str, Any]:
    """The two fields of `ResolvedMethod` that say how ranks are chosen: for their importance, or one everywhere."""
    return {"solve": schedule if importance else schedule_uniform, "by_importance": importance}


def accept(_places: "Sequence[Location]", _ranks: Ranks) -> None:
    """A ``ResolvedMethod.require`` that every strategy passes."""


@dataclass(frozen=True, slots=True)
class ResolvedMethod:
    """A method ready to plan one task.

    ``solve`` is how ranks are chosen; ``by_importance`` says that it is `taskit.scheduler.schedule`: then every rank
    has a reason, and one table holds the best strategies of all budgets.  ``options`` gives what plan.json has to
    keep for a strategy.  ``require`` raises PlanError for a strategy that the method cannot train.  Can be pickled.

    A method that trains nothing has ``fixed`` ranks, whatever the budget, and says by ``measure`` which learned tasks
    it uses: their ``similarity``.
    """

    solve: Solve
    options: Callable[[Ranks], Options]
    require: "Callable[[Sequence[Location], Ranks], None]" = accept
    by_importance: bool = False
    fixed: Ranks | None = None
    measure: str = ""
    similarity: "tuple[TaskSimilarity, ...]" = ()


class Method(Protocol):
    """A way of training, chosen by ``--method``."""

    @property
    def name(self) -> str: ...

    @property
    def explanation(self) -> str:
        """One paragraph for somebody who has not heard of it."""
        ...

    @property
    def options(self) -> Mapping[str, Option]: ...

    def resolve(self, context: MethodContext, given: Options) -> ResolvedMethod:
        """Decide all that can be decided without a budget; ``given`` holds a value for each of ``options``.

        Raises:
            PlanError: this method cannot serve the task; says what would work.
        """
        ...

    def parametrization(self, options: Options) -> Parametrization:
        """The parametrization that plan.json's ``options`` describe."""
        ...


def the_same(options: Options, _: Ranks) -> Options:
    """A ``ResolvedMethod.options`` that does not depend on the ranks."""
    return options


def read_options(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with the defaults of what it leaves out; texts, as a command line has them, become numbers.

    Raises:
        PlanError: an option that the method does not have, or a value that it does not admit.
    """
    known = method.options
    stranger = next((name for name in given if name not in known), None)
    if stranger:
        what = f"give one of {', '.join(known)}" if known else "it has none"
        raise PlanError(f"The method {method.name} has no option {stranger!r}; {what}.")
    return {name: _read(method, name, option, given.get(name, option.default)) for name, option in known.items()}


def _read(method: Method, name: str, option: Option, value: Any) -> Any:
    kind = type(option.default)
    try:
        read = kind(value) if isinstance(value, str) else value
        admitted = type(read) is kind and option.admits(read)
    except ValueError:
        admitted = False
    if not admitted:
        raise PlanError(f"The option {name} of the method {method.name} is {value!r}; give {option.expects}.")
    return read


def one_of(*names: str) -> Option:
    """A choice among ``names``, the first by default."""
    return Option(names[0], f"one of {', '.join(names)}", lambda value: value in names)


def at_least(default: int, least: int) -> Option:
    return Option(default, f"a whole number of at least {least}", lambda value: value >= least)


def between(default: float, low: float, high: float) -> Option:
    return Option(default, f"a number above {low:g} and below {high:g}", lambda value: low < value < high)


def inserted(ranks: Ranks) -> Sequence[str]:
    return [name for name, rank in ranks.items() if rank]
