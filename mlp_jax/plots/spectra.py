"""A spectral density beside the exact spectrum."""

from __future__ import annotations

import matplotlib.axes
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax.curvature import Density
from mlp_jax.plots.colours import ORANGE, SKY


def spectral_density(
    axes: matplotlib.axes.Axes, density: Density | None, values: ArrayLike | None = None, *, bins: int = 60
) -> matplotlib.axes.Axes:
    """Draw the share of eigenvalues in bins of equal width, on a log axis: by quadrature, exact, or both.

    density: from `curvature.spectral_density`, an outline, or None; values: (P,) exact eigenvalues, drawn filled.

    Examples
    --------
    >>> import matplotlib.figure
    >>> density = Density(nodes=jnp.array([[0.0, 2.0]]), weights=jnp.array([[0.9, 0.1]]))
    >>> axes = spectral_density(matplotlib.figure.Figure().subplots(), density, [0.0, 0.1, 2.0])
    >>> axes.get_ylabel()
    'share of the eigenvalues'
    """
    exact = np.zeros(0) if values is None else np.asarray(values, float).ravel()
    nodes = np.zeros(0) if density is None else np.asarray(density.nodes, float).ravel()
    both = np.concatenate([exact, nodes])
    if not both.size or not np.all(np.isfinite(both)):
        raise ValueError(f"density, values: got {both.size} eigenvalues and nodes, expected some, all finite.")
    # Slightly wider than the data, so that rounding does not put the ends outside.
    margin = 1e-6 * max(float(np.ptp(both)), float(np.abs(both).max()), 1e-300)
    edges = np.linspace(both.min() - margin, both.max() + margin, bins + 1).tolist()
    if exact.size:
        axes.hist(exact, edges, weights=np.full(exact.size, 1 / exact.size), color=SKY, label=f"exact, {exact.size}")
    if density is not None:
        label = f"quadrature, {len(density.nodes)} probes"
        weights = np.asarray(density.weights, float).ravel()
        axes.hist(nodes, edges, weights=weights, histtype="step", color=ORANGE, label=label)
    axes.set(yscale="log", xlabel="eigenvalue of the Hessian", ylabel="share of the eigenvalues")
    axes.legend(frameon=False)
    return axes
