"""Starts for `find_many`: points along a training run with noise of a chosen size. Transformable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, tree
from mlp_jax.tree import PyTree


def along_run(key: jax.Array, run: PyTree, num_starts: int, noise: float | jax.Array) -> PyTree:
    """Return `num_starts` starts (the leading axis), spread evenly over a run, each with Gaussian noise added.

    θ + noise · rms(leaf) · ε with ε ~ N(0, 1): the noise is relative to the root mean square of each leaf at that
    point (to 1 where a leaf is all zero). Searches from these starts find critical points that training passes by; the
    noise sets how far from the run they begin (Dauphin et al. 2014; Pennington & Bahri 2017).

    Parameters
    ----------
    run
        params with a leading axis: the record of a run, in order.
    num_starts
        Number of starts; if the run has fewer points, they are repeated with other noise.
    noise
        Relative size of the noise; 0 gives the points themselves.

    Raises
    ------
    TypeError, ValueError
        Leaves of `run` that are not finite floating numbers with a common leading axis; num_starts below 1; noise that
        is negative or not finite.

    Examples
    --------
    >>> run = {"w": jnp.arange(5.0)[:, None] * jnp.ones(2)}
    >>> along_run(jax.random.key(0), run, 3, 0.0)["w"].tolist()
    [[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]
    """
    _checks.key(key)
    run = jax.tree.map(jnp.asarray, run)
    _checks.params(run, "run")
    num_starts = _checks.integer(num_starts, "num_starts", 1, 2**30)
    noise = _checks.not_negative(noise, "noise")
    length = _checks.common_length(run, "run")
    places = np.round(np.linspace(0, length - 1, num_starts)).astype(int)
    points = jax.tree.map(lambda leaf: leaf[places], run)
    draws = tree.random_like(key, points)

    def moved(leaf: jax.Array, draw: jax.Array) -> jax.Array:
        axes = tuple(range(1, leaf.ndim))
        largest = jnp.max(jnp.abs(leaf), axis=axes, keepdims=True)
        largest = jnp.where(largest > 0, largest, 1)  # divided by, so that squares do not overflow
        size = largest * jnp.sqrt(jnp.mean((leaf / largest) ** 2, axis=axes, keepdims=True))
        return leaf + jnp.asarray(noise, leaf.dtype) * jnp.where(size > 0, size, 1) * draw

    return jax.tree.map(moved, points, draws)
