"""The table of a search: what was tried, how it was judged, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def tries(name: str, values: Sequence[float], judged_by: str, judged: np.ndarray, diverged: np.ndarray) -> pd.DataFrame:
    """Return one row for each of the values tried: its mean loss over seeds, and whether it is chosen.

    `judged` and `diverged` are (values, seeds). A run that diverged counts as an infinite loss, so that a value is
    chosen only if all runs could use it.
    """
    means = np.where(diverged, np.inf, judged).mean(axis=-1)
    chosen = np.arange(len(means)) == np.argmin(means)
    at_edge = chosen & np.isin(np.arange(len(means)), (0, len(means) - 1))
    columns = {name: values, judged_by: means, "diverged": diverged.sum(axis=-1), "chosen": chosen, "at_edge": at_edge}
    return pd.DataFrame(columns)
