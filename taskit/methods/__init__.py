"""The ways of training that ``--method`` chooses from; loads neither torch nor Transformers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taskit.errors import PlanError
from taskit.methods.cdra import Cdra
from taskit.methods.composing import LORAHUB_METHOD, SOUP_METHOD
from taskit.methods.eva import Eva
from taskit.methods.head import HeadAlone
from taskit.methods.method import Method, PlainMethod
from taskit.methods.pear import Pear
from taskit.methods.pi_tuning import PiTuning
from taskit.scheduler import schedule, schedule_uniform
from taskit.step.parametrization import Parametrization

if TYPE_CHECKING:
    from taskit.planning.plan import Plan

TASKIT = PlainMethod(
    "taskit",
    "TaskIT asks which layers mattered to similar tasks that were learned before, and spends the memory budget where "
    "they did: each projection matrix gets a LoRA of its own rank, or none.",
    schedule,
)
UNIFORM = PlainMethod(
    "uniform",
    "The usual LoRA: every projection matrix gets the same rank, the largest that fits the memory budget. It is the "
    "yardstick for everything else.",
    schedule_uniform,
)
_ALL: tuple[Method, ...] = (
    TASKIT,
    UNIFORM,
    PiTuning("pi", schedule_uniform),
    PiTuning("taskit+pi", schedule),
    Pear("pear", schedule_uniform),
    Pear("taskit+pear", schedule),
    Cdra("cdra"),
    Cdra("taskit+cdra", taskit=True),
    SOUP_METHOD,
    LORAHUB_METHOD,
    Eva(),
    HeadAlone(),
)
METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}


def find_method(name: Any) -> Method:
    """Raises PlanError for a name that no method has."""
    if name not in METHODS:
        raise PlanError(f"There is no method called {name!r}; choose one of {', '.join(METHODS)}.")
    return METHODS[name]


def parametrization_of(plan: "Plan") -> Parametrization:
    """The form in which ``plan`` is trained.

    Raises:
        PlanError: its method is unknown, or its options are not those that the method wrote.
    """
    try:
        return find_method(plan.method).parametrization(plan.method_options)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"The method_options of the plan miss {error}; run taskit plan again.") from error
