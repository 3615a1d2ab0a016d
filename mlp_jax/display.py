"""Results as small HTML tables, for notebooks: every cell is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from mlp_jax import _checks

_CELL = 'style="text-align:left; vertical-align:top"'


def table(title: str, rows: Iterable[Sequence[object]], header: Sequence[str] = (), note: str = "") -> str:
    """Return an HTML table with a title above and a note below; the first cell of a row is its heading.

    Parameters
    ----------
    title, note
        Plain text; markup in them is shown, not obeyed.
    rows
        Cells, each shown as `str` shows it.
    header
        Headings of the columns, if any.

    Raises
    ------
    TypeError, ValueError
        The title or the note is no text, the header no sequence of text, or a row has no cells.

    Examples
    --------
    >>> table("a < b", [("x", 1)]).startswith("<div><b>a &lt; b</b><table>")
    True
    """
    for name, value in (("title", title), ("note", note)):
        if not isinstance(value, str):
            raise TypeError(f"{name}: got {_checks.describe(value)}, expected text.")
    names = _cells(header, "header")
    lines = [f"<tr>{''.join(f'<th {_CELL}>{_text(name)}</th>' for name in names)}</tr>"] if names else []
    for number, row in enumerate(_cells(rows, "rows")):
        first, *others = _cells(row, f"rows[{number}]", 1)
        cells = "".join(f"<td {_CELL}>{_text(cell)}</td>" for cell in others)
        lines.append(f"<tr><th {_CELL}>{_text(first)}</th>{cells}</tr>")
    below = f"<small>{_text(note)}</small>" if note else ""
    return f"<div><b>{_text(title)}</b><table>{''.join(lines)}</table>{below}</div>"


def _cells(values: Any, name: str, fewest: int = 0) -> list[object]:
    """Return what is in a row, or the rows: TypeError where it is text or nothing to go through."""
    try:
        cells = [] if isinstance(values, str | bytes) else list(values)
    except TypeError:
        cells = None
    if cells is None or isinstance(values, str | bytes):
        raise TypeError(f"{name}: got {_checks.describe(values)}, expected a sequence.")
    if len(cells) < fewest:
        raise ValueError(f"{name}: got {len(cells)} cells, expected {fewest} or more.")
    return cells


def _text(value: object) -> str:
    return html.escape(str(value)).replace("\n", "<br>")
