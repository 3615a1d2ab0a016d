"""Tables as text that fits in 100 columns; the CSV file in the run's folder has the rest."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd

WIDTH = 100


def text(frame: pd.DataFrame, csv: str, **options: Any) -> str:
    """Return a table as text of at most 100 columns: `print(tables.text(rows, "summary"))`.

    Every experiment prints its tables through this. Put the columns that matter most first: the last ones are left
    out until the others fit, and named below the table.

    Parameters
    ----------
    csv
        The name that `RunFolder.table` was given, for the line that says where the other columns are.
    options
        As for `DataFrame.to_string`. Unless given: no index, and floats as `{:.4g}`.

    Examples
    --------
    >>> print(text(pd.DataFrame({"seed": [1, 2], "loss": [0.25, 1 / 3]}), "summary"))
     seed   loss
        1   0.25
        2 0.3333
    >>> print(text(pd.DataFrame({"a": ["x" * 60], "b": ["y" * 60], "c": [0]}), "summary").splitlines()[-1])
    2 more columns in summary.csv: b, c
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
