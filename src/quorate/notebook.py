"""How things look in a notebook: tables of HTML, whose every word is escaped. Knows nothing of what stands in them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Make a table.

    Args:
        title: what stands above it.
        columns: the headings.
        rows: a value for each heading; None leaves the place empty.
        note: what stands below it, if anything.

    Returns:
        HTML, without styles: a notebook has its own.
    """
    head = f"<thead>{row_of('th', columns)}</thead>" if columns else ""
    body = "".join(row_of("td", row) for row in rows)
    foot = f"<div>{html.escape(note)}</div>" if note else ""
    return f"<div><b>{html.escape(title)}</b><table>{head}<tbody>{body}</tbody></table>{foot}</div>"


def row_of(tag: str, values: Sequence[object]) -> str:
    """Make a row of cells."""
    cells = "".join(f"<{tag}>{'' if value is None else html.escape(str(value))}</{tag}>" for value in values)
    return f"<tr>{cells}</tr>"
