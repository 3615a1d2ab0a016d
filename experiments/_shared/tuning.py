"""The table of a hyperparameter search: the values tried, their scores, and the choice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def tries(name: str, values: Sequence[float], judged_by: str, judged: np.ndarray, diverged: np.ndarray) -> pd.DataFrame:
    """Return one row for each value tried: its mean loss over seeds, and whether it is chosen.

    `judged` and `diverged` are (values, seeds). A diverged run counts as an infinite loss, so that a value is chosen
    only if none of its runs diverged.
    """
    means = np.where(diverged, np.inf, judged).mean(axis=-1)
    chosen = np.arange(len(means)) == np.argmin(means)
    at_edge = chosen & np.isin(np.arange(len(means)), (0, len(means) - 1))
    columns = {name: values, judged_by: means, "diverged": diverged.sum(axis=-1), "chosen": chosen, "at_edge": at_edge}
    return pd.DataFrame(columns)
