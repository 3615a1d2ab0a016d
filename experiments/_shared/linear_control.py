"""A control for searches: a linear autoencoder, whose critical points have an index and loss in closed form.

For inputs with r covariance eigenvalues s_1 > s_2 > … and h hidden units, a critical point keeps a subset I of the
principal components, #I = q ≤ h. Its loss is ½ Σ_{i∉I} s_i, and its index is
#{(i, j): i ∈ I, j ∉ I, s_j > s_i} + (h − q)(r − q) (Baldi & Hornik 1989; Kawaguchi 2016).
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from mlp_jax import critical, losses, mlp, mlp_symmetry


def identity(z: jax.Array) -> jax.Array:
    """Return z."""
    return z


def loss(params: mlp.Params, x: Any) -> jax.Array:
    """Return half the mean squared error of a linear autoencoder."""
    return losses.mean(losses.squared_error(mlp.forward(params, x, activation=identity), x))


def rows_of(variances: np.ndarray) -> np.ndarray:
    """Return few inputs of mean 0 with these variances along the axes; the loss depends on nothing else of the data."""
    half = np.diag(np.sqrt(len(variances) * np.asarray(variances)))
    return np.concatenate([half, -half])


def classes(variances: np.ndarray, hidden: int) -> list[tuple[float, int]]:
    """Return (loss, index) of every class of critical points, in order of increasing loss."""
    rank, found = len(variances), []
    for q in range(hidden + 1):
        for kept in itertools.combinations(range(rank), q):
            left = [j for j in range(rank) if j not in kept]
            better = sum(variances[j] > variances[i] for i in kept for j in left)
            found.append((float(variances[left].sum() / 2), int(better + (hidden - q) * (rank - q))))
    return sorted(found)


def search(variances: np.ndarray, hidden: int, starts: int, key: jax.Array) -> pd.DataFrame:
    """Return the critical points found from random starts, each beside the nearest class of the closed form.

    Each start has its own random scale, so that classes with few components are reached too.
    """
    x, size = rows_of(variances), len(variances)
    key, scale_key = jax.random.split(key)
    init = jax.jit(jax.vmap(lambda k: mlp.init(k, (size, hidden, size), dtype=jnp.float64)))
    draws = init(jax.random.split(key, starts))
    scales = jnp.exp(jax.random.uniform(scale_key, (starts,), minval=-2.3, maxval=1.5))
    begin = jax.tree.map(lambda leaf: leaf * scales.reshape(-1, *[1] * (leaf.ndim - 1)), draws)
    points = critical.find_many(loss, begin, (x,))
    known = classes(variances, hidden)
    rows = []
    for i in np.flatnonzero(points.converged):
        # Entries that are zero at the critical point come back as rounding errors.
        params = jax.tree.map(lambda leaf, i=i: np.where(np.abs(leaf[i]) < 1e-12, 0, leaf[i]), points.params)
        symmetries = mlp_symmetry.tangents(loss, params, (x,), inputs=jnp.asarray(x), activation=identity)
        verdict = critical.classify(loss, params, (x,), symmetries=symmetries)
        value = float(loss(params, x))
        level, index = min(known, key=lambda pair: abs(pair[0] - value))
        rows.append((verdict.kind, verdict.inertia.negative, value, level, index, abs(value - level)))
    return pd.DataFrame(rows, columns=["kind", "index", "loss", "known_loss", "known_index", "off"])
