"""Memory budgets: parse what a person writes, and resolve it to bytes."""

import re
from dataclasses import dataclass

from taskit.errors import BudgetError
from taskit.terminal import show_bytes

UNITS = {"B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
AUTO_SHARE = 0.9  # of what the device has free


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget as written: absolute bytes, or a fraction between no update and full LoRA."""

    text: str
    bytes: int | None = None
    fraction: float | None = None

    def resolve(self, no_update: int, full_lora: int) -> int:
        """Budget in bytes: ``M_no_update + f (M_full_LoRA - M_no_update)`` for a percentage."""
        if self.bytes is not None:
            return self.bytes
        assert self.fraction is not None
        return no_update + int(self.fraction * (full_lora - no_update))


def parse_budget(text: str) -> Budget:
    """``6GiB``, ``800MiB``, ``60%`` or ``auto`` (90 % of the device's free memory).

    Raises:
        BudgetError: not one of these forms, not positive, or more than the device has.
    """
    free, total = device_memory()
    if text.strip().lower() == "auto":
        return Budget(text, bytes=int(AUTO_SHARE * free))
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*|%)\s*", text)
    if not match or (match[2] not in ("", "%") and match[2].upper() not in UNITS):
        raise BudgetError(f"The budget {text!r} is not understood; write for example 6GiB, 800MiB, 60% or auto.")
    number, unit = float(match[1]), match[2].upper()
    if not unit:
        raise BudgetError(f"The budget {text!r} has no unit; write {match[1]}% or {match[1]}GiB, say.")
    if number == 0:
        raise BudgetError("The budget is 0; give a size such as 800MiB, or a percentage such as 60%.")
    if unit == "%":
        return Budget(text, fraction=number / 100)
    size = int(number * UNITS[unit])
    if size > total:
        raise BudgetError(
            f"The budget {text} is more than the {show_bytes(total)} that this device has; give less, or write auto."
        )
    return Budget(text, bytes=size)


def device_memory() -> tuple[int, int]:
    """(free, total) bytes of the device that would train: the current GPU, else this machine."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()
    import psutil

    memory = psutil.virtual_memory()
    return memory.available, memory.total
