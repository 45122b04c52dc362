"""Where the importance of a location comes from, in a few words for the terminal and the page."""

from taskit.transfer.importance import Sources

MOST_SOURCES = 2


def attribution(sources: Sources) -> str:
    """The share of each source in an importance, the largest first: "snips 61 %, trec 30 %, 3 more 9 %"."""
    total = sum(sources.values())
    ranked = sorted(sources.items(), key=lambda item: -item[1])
    parts = [f"{name} {value / total:.0%}" for name, value in ranked[:MOST_SOURCES]]
    rest = ranked[MOST_SOURCES:]
    if rest:
        parts.append(f"{len(rest)} more {sum(value for _, value in rest) / total:.0%}")
    return ", ".join(parts)
