"""Straight lines of critical points through one that has duplicate units (Fukumizu & Amari 2000)."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, mlp, tree
from mlp_jax.curvature import precision, units
from mlp_jax.mlp import Activations, Params
from mlp_jax.mlp_symmetry.activations import traits
from mlp_jax.mlp_symmetry.network import entering, gradient

_PLACES = (-1.0, -0.3, 0.4, 1.0)


def split_lines(
    fun: Callable[..., jax.Array], params: Params, args: tuple = (), *, activation: Activations, tolerance: float = 1e-9
) -> Params:
    """Return directions of straight lines on which the gradient of `fun` is that at params, (k, ...) for each leaf.

    Two units with the same (or, with an odd or even activation, opposite) incoming weights can share their outgoing
    weights in any proportion: v₁ + t d, v₂ ∓ t d with d = v₁ or v₂. Through a critical point these are lines of
    critical points, but not symmetries: beside the line the loss changes along d. A direction is kept if the gradient
    at t = −1, …, 1 equals that at params up to rounding and the distance between the two units. Host-level, float64.

    Parameters
    ----------
    fun, params, args, activation
        See `tangents`.
    tolerance
        Units are duplicates if their incoming weights differ by less than this times the largest parameter.

    Examples
    --------
    >>> fun = lambda p, x: jnp.sum(mlp.forward(p, x) ** 2)
    >>> twice = mlp.Layer(np.ones((1, 2)), np.ones(2)), mlp.Layer(np.array([[0.5], [-0.5]]), np.zeros(1))
    >>> found = split_lines(fun, twice, (np.ones((3, 1)),), activation=jnp.tanh)
    >>> np.abs(found[1].weight).ravel().round(3).tolist()
    [0.707, 0.707]
    """
    tolerance = float(_checks.not_negative(tolerance, "tolerance"))
    with precision.float64():
        fun, params, args = precision.traced_problem(fun, params, args)
        mlp.require_layers(params)
        vector, unravel = np.asarray(tree.ravel(params)[0]), tree.ravel(params)[1]
        unit = units.traced_unit(fun, params)
        rows = _directions(params, activation, tolerance * float(np.max(np.abs(vector))))

        def at(v: np.ndarray) -> np.ndarray:
            return np.asarray(gradient(fun, v, params, args))

        kept = [row for row in rows if _is_constant(at, vector, row, unit, tolerance)]
        basis = _independent(np.asarray(kept).reshape(-1, vector.size))
        return jax.vmap(unravel)(jnp.asarray(basis))


def _directions(params: Params, activation: Activations, distance: float) -> list[np.ndarray]:
    rows = []
    phi = mlp.each_layer(activation, params)
    for depth, (layer, following) in enumerate(itertools.pairwise(params)):
        found = traits(phi[depth], layer.shape[1])
        if found.pieces > 1 or not found.separate:
            continue
        columns = entering(layer)
        leaving = np.asarray(following.weight)
        for i, j in itertools.combinations(range(columns.shape[1]), 2):
            for sign in (1.0, -1.0) if found.odd or found.even else (1.0,):
                if np.max(np.abs(columns[:, i] - sign * columns[:, j])) > distance:
                    continue
                back = sign if found.odd else 1.0
                for d in (leaving[i], back * leaving[j]):
                    moved: Any = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)), params)
                    moved[depth + 1].weight[i], moved[depth + 1].weight[j] = d, -back * d
                    if np.any(d != 0):
                        rows.append(np.asarray(tree.ravel(moved)[0]))
    return rows


def _is_constant(
    gradient: Callable[[np.ndarray], np.ndarray], vector: np.ndarray, row: np.ndarray, unit: float, tolerance: float
) -> bool:
    here, nudge = gradient(vector), 2 * unit * np.abs(vector)
    rounding = max(np.max(np.abs(gradient(vector + side * nudge) - here)) for side in (-1, 1))
    allowed = 64 * rounding + (tolerance + 64 * unit) * np.max(np.abs(vector))
    return all(np.max(np.abs(gradient(vector + t * row) - here)) <= allowed for t in _PLACES)


def _independent(rows: np.ndarray) -> np.ndarray:
    """Return rows that span the same space, an orthonormal basis when there are more rows than its dimension."""
    if len(rows) == 0 or np.linalg.matrix_rank(rows, tol=1e-8 * np.max(np.abs(rows))) == len(rows):
        return rows
    _, sizes, right = np.linalg.svd(rows, full_matrices=False)
    return right[sizes > 1e-8 * sizes[0]]
