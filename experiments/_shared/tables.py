"""What an experiment prints: tables as text of at most 100 columns, and numbers with their nouns."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd

WIDTH = 100


def text(frame: pd.DataFrame, csv: str, **options: Any) -> str:
    """Return a table as text of at most 100 columns: `print(tables.text(rows, "summary"))`.

    Put the most important columns first: columns are dropped from the end until the rest fit, and listed below the
    table with `csv`, the name that `RunFolder.table` was given. Names are printed with spaces for underscores.
    `options` are those of `DataFrame.to_string`; the defaults are no index, floats as `{:.4g}`, and "-" for NaN.
    """
    formatters = {_spaced(name): form for name, form in options.pop("formatters", {}).items()}
    options = {"index": False, "float_format": "{:.4g}".format, "na_rep": "-", "formatters": formatters} | options
    # pandas writes its own missing value, <NA>, whatever na_rep is.
    spaced = frame.astype(object).where(frame.notna(), np.nan).rename(columns=_spaced)
    for fitting in range(frame.shape[1], 0, -1):
        shown = spaced.iloc[:, :fitting].to_string(**options)
        if max(map(len, shown.splitlines())) <= WIDTH:
            break
    left = [str(name) for name in frame.columns[fitting:]]
    if not left:
        return shown
    more = f"{count(len(left), 'more column')} in {csv}.csv: {', '.join(left)}"
    return "\n".join([shown, *textwrap.wrap(more, WIDTH)])


def _spaced(name: Any) -> str:
    return str(name).replace("_", " ")


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: `count(1, "seed")` is "1 seed", `count(2, "minimum", "minima")` "2 minima"."""
    return f"{number} {one if number == 1 else many or one + 's'}"
