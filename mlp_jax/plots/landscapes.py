"""A function along a line and over a plane of parameters."""

from __future__ import annotations

import matplotlib.axes
import matplotlib.patheffects
import numpy as np
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import ArrayLike

from mlp_jax import _checks
from mlp_jax.plots.colours import BLUE, ORANGE


def profile(
    axes: matplotlib.axes.Axes,
    offsets: ArrayLike,
    values: ArrayLike,
    label: str = "",
    *,
    color: str = BLUE,
    line: str = "-",
) -> matplotlib.axes.Axes:
    """Draw a function along a line (n,), from `landscape.line` or `landscape.interpolation`.

    Examples
    --------
    >>> import matplotlib.figure
    >>> axes = profile(matplotlib.figure.Figure().subplots(), [0.0, 1.0], [2.0, 3.0])
    >>> axes.get_ylabel()
    'loss'
    """
    axes.plot(np.asarray(offsets), np.asarray(values), line, color=color, label=label or None)
    axes.set(xlabel="offset along the line", ylabel="loss")
    return axes


def contours(
    axes: matplotlib.axes.Axes,
    first_offsets: ArrayLike,
    second_offsets: ArrayLike,
    values: ArrayLike,
    *,
    trajectory: ArrayLike | None = None,
    num_levels: int = 25,
    log: bool = False,
) -> matplotlib.axes.Axes:
    """Draw a function over a plane as labelled contours on shades of grey, with a training run if given.

    Parameters
    ----------
    first_offsets, second_offsets
        (n,) and (m,): the first runs along x.
    values
        (n, m) from `landscape.plane`.
    trajectory
        (t, 2) points of a run, such as `coordinates` of `landscape.principal_plane`; the last is marked.
    num_levels
        Number of contours.
    log
        Whether the levels are at equal ratios; ValueError unless all values are above 0.

    Examples
    --------
    >>> import matplotlib.figure
    >>> t = np.linspace(-1, 1, 5)
    >>> axes = contours(matplotlib.figure.Figure().subplots(), t, t, np.add.outer(t**2, -(t**2)))
    >>> axes.get_xlabel()
    'along the first direction'
    """
    x, y = np.asarray(first_offsets), np.asarray(second_offsets)
    z = np.asarray(_checks.numbers(values, "values", finite=True), float)
    if z.shape != (*x.shape, *y.shape):
        raise ValueError(f"values: got shape {z.shape}, expected one for offsets of shapes {x.shape} and {y.shape}.")
    if log and z.min() <= 0:
        raise ValueError(f"values: got {z.min():.4g} as the least, expected values above 0 for equal ratios.")
    low, high = np.min(z), np.max(z)
    levels = np.geomspace(low, high, num_levels) if log else np.linspace(low, high, num_levels)
    if high > low:
        axes.contourf(x, y, z.T, levels, cmap="Greys", alpha=0.5)
        drawn = axes.contour(x, y, z.T, levels, colors="black", linewidths=0.5)
        labels = axes.clabel(drawn, levels[:: max(1, num_levels // 8)], fontsize="x-small", fmt="%.3g", zorder=3)
        halo = matplotlib.patheffects.withStroke(linewidth=2, foreground="white")
        for text in labels:
            text.set_path_effects([halo])
    if trajectory is not None:
        points = np.asarray(trajectory)
        axes.plot(*points.T, ".-", color=BLUE, lw=1.2, ms=4, label="training")
        axes.plot(*points[-1], "*", color=ORANGE, ms=12, label="end")
        axes.legend(frameon=True, fontsize="small")
    axes.set(xlabel="along the first direction", ylabel="along the second direction")
    return axes


def surface(axes: Axes3D, first_offsets: ArrayLike, second_offsets: ArrayLike, values: ArrayLike) -> Axes3D:
    """Draw a function over a plane as a surface, on axes made with `projection="3d"`.

    first_offsets, second_offsets, values: see `contours`.

    Examples
    --------
    >>> import matplotlib.figure
    >>> t = np.linspace(-1, 1, 5)
    >>> axes = matplotlib.figure.Figure().add_subplot(projection="3d")
    >>> surface(axes, t, t, np.add.outer(t**2, -(t**2))).get_zlabel()
    'loss'
    """
    if not isinstance(axes, Axes3D):
        raise TypeError(f'axes: got {type(axes).__name__}, expected axes made with projection="3d".')
    x, y = np.meshgrid(first_offsets, second_offsets, indexing="ij")
    axes.plot_surface(x, y, np.asarray(values, float), cmap="viridis", lw=0.2, edgecolor="black", alpha=0.9)
    axes.set(xlabel="along the first direction", ylabel="along the second direction", zlabel="loss")
    return axes
