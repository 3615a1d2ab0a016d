"""Results against the batch size, and a grid of values, such as that of a sweep."""

from __future__ import annotations

from typing import Any

import matplotlib.axes
import matplotlib.patheffects
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax.confidence import mean_interval
from mlp_jax.plots.colours import BLUE, GREY, ORANGE


def against_batch_size(
    axes: matplotlib.axes.Axes,
    batch_sizes: ArrayLike,
    samples: ArrayLike,
    label: str = "",
    *,
    color: str = BLUE,
    marker: str = "o",
) -> matplotlib.axes.Axes:
    """Draw the mean over seeds with its 95 % interval (Student's t) against the batch size, on a log2 axis.

    batch_sizes: (b,); samples: (b, seeds), of which numbers that are not finite are left out.

    Examples
    --------
    >>> import matplotlib.figure
    >>> axes = against_batch_size(matplotlib.figure.Figure().subplots(), [8, 16], [[1.0, 2.0], [2.0, 3.0]])
    >>> axes.get_xlabel()
    'batch size'
    """
    sizes = np.asarray(batch_sizes)
    kept = [row[np.isfinite(row)] for row in np.asarray(samples, float)]
    means = np.array([row.mean() if row.size else np.nan for row in kept])
    widths = np.array([mean_interval(row)[1] if len(row) > 1 else 0.0 for row in kept])  # no bar for a single seed
    axes.errorbar(sizes, means, widths, fmt=marker + "-", color=color, label=label or None, capsize=3, lw=1.2, ms=5)
    _batch_size_axis(axes, sizes)
    return axes


def updates_to_target(
    axes: matplotlib.axes.Axes,
    batch_sizes: ArrayLike,
    updates: ArrayLike,
    reached: ArrayLike,
    min_updates: float,
    min_examples: float,
) -> matplotlib.axes.Axes:
    """Draw the updates of runs to a target, log–log, with the fit S_min + E_min / B and the ideal slope −1.

    batch_sizes: (b,); updates, reached: (b, seeds) updates to the target, and whether it was reached (if not, the run
    is an arrow at its last update); min_updates, min_examples: from `gradient_noise.fit_tradeoff`, NaN for no curve.

    Examples
    --------
    >>> import matplotlib.figure
    >>> axes = updates_to_target(
    ...     matplotlib.figure.Figure().subplots(), [8, 16], [[50], [30]], [[True], [False]], 10.0, 320.0
    ... )
    >>> axes.get_yscale()
    'log'
    """
    sizes, counts, hit = np.asarray(batch_sizes), np.asarray(updates, float), np.asarray(reached, bool)
    grid = np.broadcast_to(sizes[:, None], counts.shape)
    axes.plot(grid[hit], counts[hit], "o", color=BLUE, ms=4, alpha=0.6, label="target reached")
    if not np.all(hit):
        axes.plot(grid[~hit], counts[~hit], "^", color=ORANGE, ms=6, label="target not reached")
    if np.isfinite(min_updates + min_examples) and len(sizes):
        fine = np.geomspace(sizes.min(), sizes.max(), 100)
        curve = min_updates + min_examples / fine
        axes.plot(fine, curve, color=BLUE, lw=1.2, label="fit $S_{min} + E_{min} / B$")
        axes.plot(fine, curve[0] * fine[0] / fine, "--", color=GREY, lw=1, label="slope −1")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("updates to the target")
    _batch_size_axis(axes, sizes)
    axes.legend(frameon=False, fontsize="small")
    return axes


def heat_map(
    axes: matplotlib.axes.Axes, rows: ArrayLike, columns: ArrayLike, values: ArrayLike, label: str = ""
) -> matplotlib.axes.Axes:
    """Draw values by row and column in colour, the lowest of each row ringed, values that are not finite crossed out.

    rows, columns: labels (r,) and (c,) of the axes; values: (r, c).

    Examples
    --------
    >>> import matplotlib.figure
    >>> axes = heat_map(matplotlib.figure.Figure().subplots(), [8], [0.1, 1.0], [[2.0, np.inf]])
    >>> len(axes.get_xticks())
    2
    """
    rows, columns, grid = np.asarray(rows), np.asarray(columns), np.asarray(values, float)
    finite = np.isfinite(grid)
    image = axes.imshow(np.where(finite, grid, np.nan), aspect="auto", origin="lower", cmap="viridis_r")
    for row, column in zip(*np.nonzero(~finite), strict=True):
        axes.text(column, row, "×", ha="center", va="center", color=ORANGE)
    ring: dict[str, Any] = {"mfc": "none", "mec": "black", "ms": 12, "mew": 1.5}
    halo = [matplotlib.patheffects.withStroke(linewidth=4, foreground="white")]  # visible on light and on dark
    for row in np.flatnonzero(finite.any(axis=1)):
        axes.plot(np.nanargmin(np.where(finite[row], grid[row], np.nan)), row, "o", path_effects=halo, **ring)
    axes.set_xticks(range(grid.shape[1]), [f"{value:.3g}" for value in columns], rotation=45)
    axes.set_yticks(range(grid.shape[0]), [f"{value:.3g}" for value in rows])
    axes.figure.colorbar(image, ax=axes, label=label)
    return axes


def _batch_size_axis(axes: matplotlib.axes.Axes, sizes: np.ndarray) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("batch size")
    axes.grid(alpha=0.3)
