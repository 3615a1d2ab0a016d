"""Animations, for teaching. Save with `animation.save("name.gif", writer="pillow")`."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.animation
import matplotlib.axes
import matplotlib.figure
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax.plots.colours import BLUE, ORANGE


def descents(
    axes: matplotlib.axes.Axes, paths: Sequence[ArrayLike], *, frames: int = 48
) -> matplotlib.animation.FuncAnimation:
    """Animate descents from a saddle, as points that leave trails, on axes that show the plane (`contours`).

    All take the same time, each at constant speed; that of the gradient flow itself vanishes at both ends. The saddle
    is a circle, the ends are stars.

    Parameters
    ----------
    paths
        Each (t, 2): points of a descent in the plane, such as `Descents.paths` of a function of two parameters.
    frames
        Number of frames, of which the last shows the whole paths.

    Examples
    --------
    >>> import tempfile, matplotlib.figure
    >>> axes = matplotlib.figure.Figure(figsize=(1, 1)).subplots()
    >>> animation = descents(axes, [[[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [-1.0, 2.0]]], frames=2)
    >>> animation.save(tempfile.mkdtemp() + "/descents.gif", writer="pillow")
    >>> [line.get_xdata().tolist() for line in axes.lines[:2]]
    [[0.0, 1.0], [0.0, -1.0]]
    """
    rows = [np.asarray(path, float) for path in paths]
    lengths = [np.append(0, np.cumsum(np.linalg.norm(np.diff(row, axis=0), axis=1))) for row in rows]
    trails = [axes.plot(*row[:1].T, "-", color=BLUE, lw=1.6, zorder=4)[0] for row in rows]
    heads = [axes.plot(*row[:1].T, "o", color=BLUE, mec="white", ms=7, zorder=5)[0] for row in rows]
    axes.plot(*rows[0][0], "o", color=ORANGE, ms=7, zorder=6)
    axes.plot(*np.array([row[-1] for row in rows]).T, "*", color=BLUE, ms=13, zorder=6)

    def draw(frame: int) -> list:
        share = frame / max(1, frames - 1)
        for row, length, trail, head in zip(rows, lengths, trails, heads, strict=True):
            here = [np.interp(share * length[-1], length, column) for column in row.T]
            trail.set_data(*np.vstack([row[length < share * length[-1]], here]).T)
            head.set_data(*np.transpose([here]))
        return [*trails, *heads]

    assert isinstance(axes.figure, matplotlib.figure.Figure)
    return matplotlib.animation.FuncAnimation(axes.figure, draw, frames, interval=60, init_func=lambda: [])
