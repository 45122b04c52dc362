"""Tables and figures as Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and all others figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float) -> str:
    """Three decimals below one per cent, one above."""
    value = 100 * share
    return f"{value:.1f} %" if abs(value) >= 1 else f"{round(value, 3) + 0.0:.3f} %"  # + 0.0: no minus before zero


def accuracy(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def points(share: float | None) -> str:
    """A difference of accuracies or of other shares."""
    return "" if share is None else f"{round(100 * share, 1) + 0.0:+.1f}"


def kib(size: float | None) -> str:
    return "" if size is None else f"{size / 2**10:,.0f} KiB"


def mib(size: float | None) -> str:
    return "" if size is None else f"{size / 2**20:.1f} MiB"


def seconds(value: float) -> str:
    """Milliseconds below a tenth of a second."""
    if value < 0.1:
        return f"{1000 * value:.0f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
