"""The smallest network that reaches a goal at each depth, with seeds that never reach it censored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from experiments._shared.finite_hypotheses import proportion_interval
from mlp_jax.confidence import mean_interval


def smallest(errors: np.ndarray, goal: float) -> np.ndarray:
    """Return the first position along the last axis with an error of at most `goal`; infinite if there is none."""
    reached = errors <= goal
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1), np.inf)


def sign_test(shallow: np.ndarray, deep: np.ndarray) -> tuple[int, int, float]:
    """Return the numbers of pairs in which deep needed less and more than shallow, and the two-sided p of a sign test.

    Ties are left out; two infinite numbers are a tie.
    """
    fewer, more = int(np.sum(deep < shallow)), int(np.sum(deep > shallow))
    return fewer, more, float(scipy.stats.binomtest(fewer, fewer + more).pvalue) if fewer + more else 1.0


def needed(runs: pd.DataFrame, rates: tuple[float, ...]) -> pd.DataFrame:
    """Return one row for each task and depth: the smallest network whose median error over seeds reaches the goal.

    `fewer`, `more` and `p` are those of the sign test against the first depth, seed by seed; `verdict` holds at 5 % for
    all depths together (Bonferroni). `ratio` is the error over that of the first depth at the largest size: geometric
    mean over paired seeds, with its 95 % interval. `rate at edge` counts the sizes whose learning rate is the smallest
    or largest tried.
    """
    table, first = [], np.zeros(0)
    for (task, goal, depth), part in runs.groupby(["task", "goal", "depth"], sort=False):
        grid, sizes = part.pivot(index="seed", columns="at most", values="error").to_numpy(), part.parameters.unique()
        first = grid if depth == runs.depth.min() else first
        place = smallest(np.median(grid, axis=0), goal)
        there = int(np.sum(grid[:, int(np.minimum(place, len(sizes) - 1))] <= goal))
        censored = int(np.sum(np.isinf(smallest(grid, goal))))
        edge = part[part.rate.isin((rates[0], rates[-1]))].parameters.nunique()
        fewer, more, p = sign_test(smallest(first, goal), smallest(grid, goal))
        verdict = "not significant" if p >= 0.05 / max(1, runs.depth.nunique() - 1) else "fewer"
        verdict = "" if grid is first else "more" if verdict == "fewer" and more > fewer else verdict
        middle, half = mean_interval(_log(grid[:, -1]) - _log(first[:, -1]))
        ratios = (float(np.exp(value)) for value in (middle, middle - half, middle + half))
        size = sizes[int(place)] if np.isfinite(place) else np.inf
        row = (task, goal, depth, size, there, *proportion_interval(there, len(grid)), censored, edge)
        table.append((*row, fewer, more, p, verdict, *ratios, int(part.diverged.sum())))
    columns = ["task", "goal", "depth", "parameters", "seeds there", "share from", "to", "censored", "rate at edge"]
    signs = ["fewer", "more", "p", "verdict", "ratio", "ratio from", "ratio to", "diverged"]
    return pd.DataFrame(table, columns=columns + signs)


def _log(errors: Any) -> np.ndarray:
    return np.log(np.maximum(np.asarray(errors, float), 1e-12))
