"""What the page says of one benchmark."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1]
Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """``verdict`` is one sentence computed from the JSON; ``holds`` is None where it does not decide the claim.

    ``figure`` is the sentence that README quotes, and ``pictures`` are SVG by file name.
    """

    verdict: str
    holds: bool | None
    body: tuple[str, ...] = ()
    figure: str = ""
    pictures: Mapping[str, str] = field(default_factory=dict)

    @property
    def word(self) -> str:
        return {True: "holds", False: "does not hold", None: "not decided"}[self.holds]


def claim_of(name: str) -> str:
    """The claim in the first line of the docstring of ``benchmarks/NAME.py``."""
    text = ast.get_docstring(ast.parse((SCRIPTS / f"{name}.py").read_text(encoding="utf-8"))) or ""
    first = text.splitlines()[0].removeprefix("Claim: ")
    return first[0].upper() + first[1:]
