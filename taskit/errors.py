"""The one family of errors: every message is a sentence that names what was wrong and what to do next."""


class TaskITError(Exception):
    """Something the user can mend; the CLI prints its message and exits with 1."""


class DataError(TaskITError, ValueError):
    """The dataset cannot be read, or cannot be learned from as it is."""


class BackboneError(TaskITError):
    """The base model cannot be found, loaded or adapted."""


class ZooError(TaskITError):
    """A zoo, or one learned task in it, cannot be used."""


class BudgetError(TaskITError, ValueError):
    """The memory budget cannot be understood or cannot be met."""


class PlanError(TaskITError, ValueError):
    """A plan file is broken or contradicts its backbone."""


class RunError(TaskITError):
    """A training run cannot be started, read or continued."""


class HubError(TaskITError):
    """The Hub refuses what was asked of it."""


class HubUnavailableError(HubError):
    """The Hub cannot answer now: no network, too many requests, or trouble of its own.

    ``wait`` is the number of seconds that it asks to wait, None where it names none.
    """

    def __init__(self, message: str, wait: int | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def first_line(error: BaseException) -> str:
    """The first line of a library's error, without its full stop, to stand inside a sentence of ours.

    The name of its class where it has no text.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
