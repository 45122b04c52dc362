"""Faults on demand: the n-th request that matches is answered wrongly, once or for good."""

import re
from dataclasses import dataclass


@dataclass
class Fault:
    """``kind`` is an HTTP status, "drop" (connection closed, nothing done), "cut" (done, half of the answer sent), or
    "stall" (done, and never answered).

    ``pattern`` is searched in "METHOD path"; the first ``skip`` matches are left alone; ``times`` are spoilt.
    """

    kind: int | str
    pattern: str
    skip: int = 0
    times: int = 1

    def strikes(self, request: str) -> bool:
        if self.times <= 0 or not re.search(self.pattern, request):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"} if self.kind == 429 else {}
