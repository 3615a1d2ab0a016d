"""Critical points: their losses and indices, and the spectrum of the Hessian at one."""

from __future__ import annotations

import matplotlib.axes
import matplotlib.cm
import matplotlib.colors
import matplotlib.ticker
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax import _checks
from mlp_jax.plots.colours import BLUE, GREY, ORANGE


def loss_against_index(
    axes: matplotlib.axes.Axes,
    index: ArrayLike,
    loss: ArrayLike,
    padded: ArrayLike | None = None,
    *,
    filled: ArrayLike | None = None,
    shade: ArrayLike | None = None,
    shade_label: str = "",
) -> matplotlib.axes.Axes:
    """Draw the loss of critical points against their index, minima as stars.

    Parameters
    ----------
    index, loss
        (n,) numbers of negative eigenvalues, and losses.
    padded
        (n,) whether a point is that of a smaller network padded with dead units, drawn as a cross.
    filled
        (n,) whether a point is proved; others are drawn hollow.
    shade, shade_label
        (n,) numbers shown as colour, such as the test accuracy, and the label of their scale.

    Examples
    --------
    >>> import matplotlib.figure
    >>> axes = loss_against_index(matplotlib.figure.Figure().subplots(), [0, 3], [0.1, 0.2])
    >>> axes.get_xlabel()
    'index (number of negative eigenvalues)'
    """
    index_, loss_ = np.asarray(index, int), np.asarray(loss, float)
    padded_ = np.zeros(len(index_), bool) if padded is None else np.asarray(padded, bool)
    filled_ = np.ones(len(index_), bool) if filled is None else np.asarray(filled, bool)
    colours = np.where(index_ == 0, BLUE, ORANGE)
    if shade is not None:
        scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(np.min(shade), np.max(shade)), "viridis_r")
        colours = np.array([matplotlib.colors.to_hex(colour) for colour in scale.to_rgba(np.asarray(shade, float))])
        axes.figure.colorbar(scale, ax=axes, label=shade_label)
    groups = [
        (index_ == 0, "*", 160, "minimum"),
        ((index_ > 0) & ~padded_, "o", 50, "saddle"),
        ((index_ > 0) & padded_, "X", 50, "saddle of a smaller network, padded with dead units"),
    ]
    for group, marker, size, label in groups:
        for inside, note in ((True, "" if filled is None else ", proved"), (False, "")):
            chosen = group & (filled_ == inside)
            if np.any(chosen):
                face = colours[chosen] if inside else "none"
                place = index_[chosen], loss_[chosen], size
                axes.scatter(*place, marker=marker, c=face, edgecolors=colours[chosen], label=label + note)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.set_xlabel("index (number of negative eigenvalues)")
    axes.set_ylabel("loss (nats, with penalty)")
    if len(index_):
        axes.legend(fontsize="small")  # with a frame, since its markers look like points
    return axes


def eigenvalues(
    axes: matplotlib.axes.Axes, values: ArrayLike, title: str = "", *, bound: float | None = None
) -> matplotlib.axes.Axes:
    """Draw the sorted eigenvalues of a Hessian by rank on a symlog axis: positive, negative, or of unknown sign.

    values: (P,); bound: the size below which a sign is unknown, by default P u max |λ| with u = 2⁻⁵², the error of an
    eigensolver in float64. The error of the matrix itself may be larger.

    Examples
    --------
    >>> import matplotlib.figure
    >>> axes = eigenvalues(matplotlib.figure.Figure().subplots(), [-1.0, 1e-3, 2.0], "saddle")
    >>> axes.get_yscale()
    'symlog'
    """
    sorted_values = np.sort(np.asarray(_checks.numbers(values, "values", "(P,)", finite=True), float))
    if bound is None:
        bound = len(sorted_values) * 2.0**-52 * float(np.abs(sorted_values).max())
    rank = np.arange(1, len(sorted_values) + 1)
    positive, negative = sorted_values > bound, sorted_values < -bound
    for chosen, style, color, size, name in (
        (positive, ".", BLUE, 3, "positive"),
        (negative, "v", ORANGE, 5, "negative"),
        (~positive & ~negative, "x", GREY, 4, "too small to tell"),
    ):
        if np.any(chosen):
            label = f"{np.sum(chosen)} {name}"
            axes.plot(rank[chosen], sorted_values[chosen], style, color=color, ms=size, label=label)
    nonzero = np.abs(sorted_values[sorted_values != 0])
    # A power of ten, so that no tick label lies between it and zero, where it would overlap that of zero.
    linear = 10.0 ** np.floor(np.log10(max(float(nonzero.min(initial=1.0)), 1e-12)))
    axes.set_yscale("symlog", linthresh=linear, linscale=0.8)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set(xlabel="rank", ylabel="eigenvalue of the Hessian", title=title)
    axes.legend(fontsize="small")
    return axes
