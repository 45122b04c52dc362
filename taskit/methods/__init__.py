"""The ways of training that ``--method`` chooses from; loads neither torch nor Transformers."""

from collections.abc import Mapping
from typing import Any

from taskit.errors import PlanError
from taskit.methods.cdra import Cdra
from taskit.methods.composing import LORAHUB_METHOD, SOUP_METHOD
from taskit.methods.eva import Eva
from taskit.methods.method import Method, Options
from taskit.methods.pear import Pear
from taskit.methods.pi_tuning import PiTuning
from taskit.methods.plain import TASKIT, UNIFORM, HeadAlone
from taskit.step.parametrization import Parametrization

_ALL: tuple[Method, ...] = (
    TASKIT,
    UNIFORM,
    PiTuning("pi"),
    PiTuning("taskit+pi", by_importance=True),
    Pear("pear"),
    Pear("taskit+pear", by_importance=True),
    Cdra("cdra"),
    Cdra("taskit+cdra", by_importance=True),
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


def parametrization_of(method: str, options: Options) -> Parametrization:
    """How a plan of ``method`` with these method_options parametrizes its LoRA.

    Raises:
        PlanError: the method is unknown, or its options are not those that it wrote.
    """
    try:
        return find_method(method).parametrization(options)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"The method_options of the plan miss {error}; run taskit plan again.") from error
