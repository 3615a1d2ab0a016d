"""A census: the losses of critical points by index, and the ends of the descents from each saddle."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.axes
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax.plots.colours import BLUE, GREY, ORANGE


def census_levels(
    axes: matplotlib.axes.Axes, index: ArrayLike, loss: ArrayLike, copies: ArrayLike, title: str = ""
) -> matplotlib.axes.Axes:
    """Draw a line for each critical point at its loss, by index; its width grows with the number of copies.

    index, loss, copies: (n,) numbers of negative eigenvalues, losses, and symmetric copies.

    Examples
    --------
    >>> import matplotlib.figure
    >>> axes = census_levels(matplotlib.figure.Figure().subplots(), [0, 1, 1], [0.1, 0.2, 0.3], [8, 8, 4])
    >>> [label.get_text() for label in axes.get_xticklabels()]
    ['0\\n8', '1\\n12']
    """
    index_, loss_, copies_ = np.asarray(index, int), np.asarray(loss, float), np.asarray(copies, int)
    widest = max(1, int(copies_.max(initial=1)))
    for i, level, count in zip(index_, loss_, copies_, strict=True):
        half = 0.08 + 0.3 * count / widest
        axes.plot([i - half, i + half], [level, level], color=BLUE if i == 0 else ORANGE, lw=2, solid_capstyle="butt")
    seen = np.unique(index_)
    totals = [int(copies_[index_ == i].sum()) for i in seen]
    axes.set_xticks(seen, [f"{i}\n{total}" for i, total in zip(seen, totals, strict=True)])
    axes.set(xlabel="index\nnumber of points, copies counted", ylabel="loss (with penalty)", title=title)
    return axes


def saddle_graph(
    axes: matplotlib.axes.Axes,
    loss: ArrayLike,
    index: ArrayLike,
    edges: Sequence[tuple[int, int | None, int | None]],
    title: str = "",
) -> matplotlib.axes.Axes:
    """Draw a line over each saddle that joins the two points where descents from it end, all at their losses.

    Parameters
    ----------
    loss, index
        (n,) losses and indices of all points; ends of index 0 are drawn as minima.
    edges
        (saddle, end, end): numbers of points; None for an end that is not among them, which is not drawn.
    title
        Above the axes.

    Examples
    --------
    >>> import matplotlib.figure
    >>> axes = saddle_graph(matplotlib.figure.Figure().subplots(), [0.1, 0.2, 0.3], [0, 0, 1], [(2, 0, 1)])
    >>> len(axes.lines)
    1
    """
    loss_, index_ = np.asarray(loss, float), np.asarray(index, int)
    ends_ = sorted({end for _, *ends in edges for end in ends if end is not None}, key=lambda i: loss_[i])
    place = {point: number for number, point in enumerate(ends_)}
    taken: dict[tuple[int, ...], int] = {}
    for saddle, *ends in edges:
        known = [end for end in ends if end is not None]
        if not known:
            continue
        pair = tuple(sorted(place[end] for end in known))
        number = taken[pair] = taken.get(pair, -1) + 1
        # Saddles between the same pair are drawn side by side.
        middle = float(np.mean(pair)) + (0.12 + 0.1 * number) * (1 if pair[0] == pair[-1] else (-1) ** number)
        xs = [place[known[0]], middle, place[known[-1]]]
        axes.plot(xs, [loss_[known[0]], loss_[saddle], loss_[known[-1]]], "-", color=GREY, lw=1, zorder=1)
        axes.scatter(middle, loss_[saddle], 25, color=ORANGE, marker="o", zorder=2, label="saddle")
    for point in ends_:
        minimum = index_[point] == 0
        look = (150, BLUE, "*", "minimum") if minimum else (40, ORANGE, "s", "not a minimum")
        axes.scatter(place[point], loss_[point], look[0], color=look[1], marker=look[2], zorder=3, label=look[3])
    names = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))  # each name once
    if names:
        axes.legend(names.values(), names.keys(), fontsize="small", framealpha=0.9)
    axes.set_xticks(range(len(ends_)), [str(point) for point in ends_])
    axes.margins(x=0.2)
    axes.set(xlabel="point where a descent ends", ylabel="loss (with penalty)", title=title)
    return axes
