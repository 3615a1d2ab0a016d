"""Curves over training, with intervals over seeds."""

from __future__ import annotations

import matplotlib.axes
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax.confidence import mean_interval
from mlp_jax.plots.colours import BLUE


def training_curve(
    axes: matplotlib.axes.Axes,
    steps: ArrayLike,
    runs: ArrayLike,
    label: str = "",
    *,
    color: str = BLUE,
    line: str = "-",
) -> matplotlib.axes.Axes:
    """Draw the mean over runs at every step, and a band of its 95 % interval (Student's t; none for a single run).

    Runs with a number that is not finite are left out, and the label says how many diverged.

    steps: (t,) numbers of updates, examples or epochs; runs: (runs, t) recorded numbers; color, line: as in matplotlib.
    Choose both, so that curves differ in grey.

    Examples
    --------
    >>> import matplotlib.figure
    >>> axes = matplotlib.figure.Figure().subplots()
    >>> axes = training_curve(axes, [1, 2], [[3.0, 1.0], [5.0, 1.0], [np.inf, np.inf]], "SGD")
    >>> axes.lines[0].get_ydata().tolist(), axes.lines[0].get_label()
    ([4.0, 1.0], 'SGD (1 of 3 diverged)')
    """
    x, values = np.asarray(steps), np.asarray(runs, float)
    kept = values[np.isfinite(values).all(axis=1)]
    lost = len(values) - len(kept)
    name = f"{label} ({lost} of {len(values)} diverged)".strip() if lost else label
    if not len(kept):
        axes.plot([], [], line, color=color, label=name or None)
        return axes
    mean, half = mean_interval(kept)
    axes.plot(x, mean, line, color=color, label=name or None)
    if len(kept) > 1:
        axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.2, lw=0)
    return axes
