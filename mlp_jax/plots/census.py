"""A census: the losses of critical points by index."""

from __future__ import annotations

import matplotlib.axes
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax.plots.colours import BLUE, ORANGE


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
