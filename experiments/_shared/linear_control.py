"""A control of the search for critical points: a linear autoencoder, whose index and loss are known in closed form.

For inputs with covariance eigenvalues s_1 > s_2 > … (r of them) and h hidden units, a critical point keeps a subset I
of the principal components, #I = q ≤ h; its loss is ½ Σ_{i∉I} s_i, and its index
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
    """Return few inputs, of mean 0, with these variances along the axes: all that the loss sees of any data.

    Examples
    --------
    >>> x = rows_of(np.array([4.0, 1.0]))
    >>> (x.T @ x / len(x)).round(12).tolist()
    [[4.0, 0.0], [0.0, 1.0]]
    """
    half = np.diag(np.sqrt(len(variances) * np.asarray(variances)))
    return np.concatenate([half, -half])


def classes(variances: np.ndarray, hidden: int) -> list[tuple[float, int]]:
    """Return (loss, index) of every class of critical points, by rising loss.

    Examples
    --------
    >>> classes(np.array([3.0, 1.0]), 1)
    [(0.5, 0), (1.5, 1), (2.0, 2)]
    """
    rank, found = len(variances), []
    for q in range(hidden + 1):
        for kept in itertools.combinations(range(rank), q):
            left = [j for j in range(rank) if j not in kept]
            better = sum(variances[j] > variances[i] for i in kept for j in left)
            found.append((float(variances[left].sum() / 2), int(better + (hidden - q) * (rank - q))))
    return sorted(found)


def search(variances: np.ndarray, hidden: int, starts: int, key: jax.Array) -> pd.DataFrame:
    """Descend the gradient norm from random starts, and return what was found beside what the closed form says.

    Each start has a scale of its own, so that classes with few components are reached as well.
    """
    x, size = rows_of(variances), len(variances)
    key, scale_key = jax.random.split(key)
    draws = jax.jit(jax.vmap(lambda k: mlp.init(k, (size, hidden, size), dtype=jnp.float64)))(
        jax.random.split(key, starts)
    )
    scales = jnp.exp(jax.random.uniform(scale_key, (starts,), minval=-2.3, maxval=1.5))
    begin = jax.tree.map(lambda leaf: leaf * scales.reshape(-1, *[1] * (leaf.ndim - 1)), draws)
    points = critical.find_many(loss, begin, (x,))
    known = classes(variances, hidden)
    rows = []
    for i in np.flatnonzero(points.converged):
        # A search that ends at zero ends at some rounding of it.
        params = jax.tree.map(lambda leaf, i=i: np.where(np.abs(leaf[i]) < 1e-12, 0, leaf[i]), points.params)
        symmetries = mlp_symmetry.tangents(loss, params, (x,), inputs=jnp.asarray(x), activation=identity)
        verdict = critical.classify(loss, params, (x,), symmetries=symmetries)
        value = float(loss(params, x))
        nearest = known[int(np.argmin([abs(level - value) for level, _ in known]))]
        rows.append(
            {
                "kind": verdict.kind,
                "index": verdict.inertia.negative,
                "loss": value,
                "known_loss": nearest[0],
                "known_index": nearest[1],
                "off": abs(value - nearest[0]),
            }
        )
    return pd.DataFrame(rows)
