"""What a person writes after --zoo to mean the Hub."""

import re
from dataclasses import dataclass

from taskit.errors import ZooError

HUB = "hub"
_ID = re.compile(r"(?!collections/)\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?")
_AUTHOR = re.compile(r"\w[\w.-]*")
_COLLECTION = re.compile(r"collections/(\w[\w.-]*/\w[\w.-]*)")


@dataclass(frozen=True, slots=True)
class HubSource:
    """All shared for TaskIT, or one author's, or a collection's, or those of ``ids`` ("OWNER/NAME[@REVISION]")."""

    author: str = ""
    collection: str = ""
    ids: tuple[str, ...] = ()


def is_hub(source: object) -> bool:
    """Whether ``source`` means the Hub rather than a folder; a folder called hub is written ./hub."""
    return isinstance(source, str) and (source == HUB or source.startswith(f"{HUB}:"))


def parse_source(source: str) -> HubSource:
    """``hub``, ``hub:AUTHOR``, ``hub:OWNER/NAME,...`` or ``hub:collections/OWNER/SLUG``; raises ZooError.

    >>> parse_source("hub:ann/birds,bob/cars@v1").ids
    ('ann/birds', 'bob/cars@v1')
    """
    rest = source.removeprefix(HUB).removeprefix(":")
    if source == HUB:
        return HubSource()
    if match := _COLLECTION.fullmatch(rest):
        return HubSource(collection=match[1])
    if _AUTHOR.fullmatch(rest):
        return HubSource(author=rest)
    ids = tuple(dict.fromkeys(part.strip() for part in rest.split(",")))
    if not all(_ID.fullmatch(id) for id in ids):
        raise ZooError(
            f"The zoo {source!r} is not understood; write hub, hub:AUTHOR, hub:OWNER/NAME,OWNER/NAME or "
            "hub:collections/OWNER/SLUG."
        )
    return HubSource(ids=ids)
