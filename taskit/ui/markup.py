"""Small pieces of HTML: escaped text, notices, figures, panels.  Everything from outside passes through `text`."""

from collections.abc import Iterable, Mapping
from html import escape


def text(value: object) -> str:
    """`value` as HTML text, safe in an attribute too."""
    return escape(str(value), quote=True)


def notice(message: object, kind: str = "error") -> str:
    """One sentence to the visitor; read out at once where it is an error.  ``kind``: error, warning, good or note."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="notice {kind}" role="{role}">{text(message)}</div>'


def empty(title: str, hint: str) -> str:
    """The placeholder of an empty view: what will be there, and what to do for it."""
    return f'<div class="empty"><strong>{text(title)}</strong><span>{text(hint)}</span></div>'


def panel(title: str, hint: str, body: str) -> str:
    """A card with a heading, one line that says how to read it, and its body (HTML)."""
    return f'<section class="card"><h3>{text(title)}</h3><p class="hint">{text(hint)}</p>{body}</section>'


def figures(values: Mapping[str, str]) -> str:
    """A row of large figures under their names."""
    items = (f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in values.items())
    return f'<dl class="figures">{"".join(items)}</dl>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]], caption: str = "") -> str:
    """A table whose cells are HTML already; it scrolls by itself where the page is narrow."""
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table class="plain">{title}<tr>{columns}</tr>{lines}</table></div>'


def bar(name: str, track: str, value: str, *, muted: bool = False, tip: str = "") -> str:
    """A row of a bar chart, to be put into ``<div class="bars">``; all but ``tip`` is HTML already.

    ``track`` holds the bar, ``<i style="left:0;width:40%"></i>``, and marks such as ``<b style="left:50%"></b>``.
    """
    title = f' title="{text(tip)}"' if tip else ""
    return (
        f'<div class="bar{" unused" if muted else ""}"{title}><span class="name">{name}</span>'
        f'<span class="track">{track}</span><span class="value">{value}</span></div>'
    )


def share(part: float, whole: float) -> str:
    """A length in per cent for a style attribute, within 0 and 100."""
    return f"{min(max(part / whole, 0.0), 1.0) * 100:.3f}%" if whole else "0%"
