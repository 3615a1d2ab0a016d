"""Tables as text of at most 100 columns; the CSV file in the run folder has the rest."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

WIDTH = 100


def text(frame: pd.DataFrame, csv: str, **options: Any) -> str:
    """Return a table as text of at most 100 columns: `print(tables.text(rows, "summary"))`.

    Put the most important columns first: columns are dropped from the end until the rest fit, and listed below the
    table with `csv`, the name that `RunFolder.table` was given. `options` are those of `DataFrame.to_string`; the
    defaults are no index, and floats as `{:.4g}`.
    """
    options = {"index": False, "float_format": "{:.4g}".format} | options
    for count in range(frame.shape[1], 0, -1):
        shown = frame.iloc[:, :count].to_string(**options)
        if max(map(len, shown.splitlines())) <= WIDTH:
            break
    left = [str(name) for name in frame.columns[count:]]
    if not left:
        return shown
    more = f"{len(left)} more column{'s' * (len(left) > 1)} in {csv}.csv: {', '.join(left)}"
    return "\n".join([shown, *textwrap.wrap(more, WIDTH)])
