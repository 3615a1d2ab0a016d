"""Results as small HTML tables, for notebooks. Every cell is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["table"]
__dir__ = __all__.copy

_CELL = 'style="text-align:left; vertical-align:top"'


def table(title: str, rows: Iterable[Sequence[object]], header: Sequence[str] = (), note: str = "") -> str:
    """Return an HTML table with a title above and a note below; the first cell of a row is its heading.

    title, note: plain text, in which markup is shown as text; rows: rows of cells, each shown as `str` shows it;
    header: headings of the columns, if any.

    Examples
    --------
    >>> table("a < b", [("x", 1)]).startswith("<div><b>a &lt; b</b><table>")
    True
    """
    lines = [f"<tr>{''.join(f'<th {_CELL}>{_text(name)}</th>' for name in header)}</tr>"] if header else []
    for first, *others in rows:
        cells = "".join(f"<td {_CELL}>{_text(cell)}</td>" for cell in others)
        lines.append(f"<tr><th {_CELL}>{_text(first)}</th>{cells}</tr>")
    below = f"<small>{_text(note)}</small>" if note else ""
    return f"<div><b>{_text(title)}</b><table>{''.join(lines)}</table>{below}</div>"


def _text(value: object) -> str:
    return html.escape(str(value)).replace("\n", "<br>")
