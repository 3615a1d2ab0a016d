"""Directions to look along: scaled to params, of a training run, and of the Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, tree
from mlp_jax.curvature import eigenpairs, hessian, precision
from mlp_jax.tree import PyTree


class PrincipalPlane(NamedTuple):
    """The plane of a training run. A pytree.

    first, second
        Orthonormal directions, pytrees like params.
    coordinates
        (t, 2) where each recorded point lies in them, as seen from the last point.
    explained
        (2,) share of Σ ‖θₜ − θ_last‖² that lies along each.
    """

    first: PyTree
    second: PyTree
    coordinates: jax.Array
    explained: jax.Array


class EigenvectorPlane(NamedTuple):
    """The ends of the spectrum of the Hessian at a point.

    first, second
        Unit eigenvectors of the lowest and of the highest eigenvalue, pytrees like params.
    values
        (2,) those eigenvalues.
    residuals
        (2,) ‖H v − λ v‖ of both.
    """

    first: PyTree
    second: PyTree
    values: np.ndarray
    residuals: np.ndarray


def filter_normalized(direction: PyTree, params: PyTree, *, axis: int = -1) -> PyTree:
    """Return the direction with every filter as long as that of params: d ← d ‖w‖ / ‖d‖ for each filter. Transformable.

    A filter is what leads to one output unit: a column of a weight (in, out). Leaves with fewer than two axes (biases)
    do not move. Pictures of networks of different scale can then be compared: Li et al. (2018), "Visualizing the loss
    landscape of neural nets", section 4.

    Parameters
    ----------
    direction, params
        Pytrees of the same structure and shapes.
    axis
        The axis of output units: -1 in this package and in flax, also for convolutions; 0 in equinox and torch.

    Returns
    -------
    pytree like params; zero where a filter of the direction is zero

    Raises
    ------
    TypeError, ValueError
        Leaves that are not floating; structures or shapes that differ; an axis that a leaf does not have.

    Examples
    --------
    >>> direction = filter_normalized({"w": jnp.ones((4, 2))}, {"w": jnp.array([[3.0, 0.0]] * 4)})
    >>> jnp.linalg.norm(direction["w"], axis=0).tolist()
    [6.0, 0.0]
    """

    _require_direction(direction, params)
    largest = min((np.ndim(w) for w in jax.tree.leaves(params) if np.ndim(w) > 1), default=1)
    axis = _checks.integer(axis, "axis", -largest, largest - 1)

    def scaled(d: jax.Array, w: jax.Array) -> jax.Array:
        if jnp.ndim(w) < 2:
            return jnp.zeros_like(d)
        others = tuple(i for i in range(jnp.ndim(w)) if i != axis % jnp.ndim(w))
        return _scale(d, w, others)

    return jax.tree.map(scaled, direction, params)


def layer_normalized(direction: PyTree, params: PyTree) -> PyTree:
    """Return the direction with every leaf as long as that of params: d ← d ‖w‖ / ‖d‖ for each leaf. Transformable.

    Biases move too, as far as they are long; a leaf of zeros, such as a bias at its start, does not.

    Parameters
    ----------
    direction, params
        Pytrees of the same structure and shapes.

    Returns
    -------
    pytree like params

    Raises
    ------
    TypeError, ValueError
        Leaves that are not floating; structures or shapes that differ.

    Examples
    --------
    >>> layer_normalized(jnp.array([3.0, 4.0]), jnp.array([0.0, 10.0])).tolist()
    [6.0, 8.0]
    """
    _require_direction(direction, params)
    return jax.tree.map(lambda d, w: _scale(d, w, None), direction, params)


def _require_direction(direction: PyTree, params: PyTree) -> None:
    _checks.leaves(direction, "direction", floating=True)
    _checks.leaves(params, "params", floating=True)
    _checks.like(direction, params, "direction")


def _scale(d: jax.Array, w: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
    length, wanted = (_length(a, axes) for a in (d, w))
    return d * jnp.where(length > 0, wanted / jnp.where(length > 0, length, 1), 0)


def _length(a: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
    """Return norms over some axes, which stay as axes of length 1; no square over- or underflows."""
    largest = jnp.max(jnp.abs(a), axis=axes, keepdims=True, initial=0)
    unit = jnp.where(largest > 0, largest, 1)
    return unit * jnp.sqrt(jnp.sum(jnp.square(a / unit), axis=axes, keepdims=True))


def principal_plane(trajectory: PyTree) -> PrincipalPlane:
    """Return the plane through the last point of a run in which its points lie best. Transformable.

    The two first right singular vectors of the rows θₜ − θ_last (Li et al. 2018, section 7). Draw the loss with
    `plane(fun, last, plane.first, plane.second, …)`, and the run as `plane.coordinates` on it. A random walk in many
    dimensions has large shares as well (Antognini & Sohl-Dickstein 2018): they say little by themselves.

    Parameters
    ----------
    trajectory
        Pytree like params whose leaves have a leading axis of t points, t ≥ 3: the record of a training run.

    Raises
    ------
    ValueError
        The leading axes differ, or there are fewer than three points or two parameters.

    Examples
    --------
    >>> run = {"w": jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])}
    >>> found = principal_plane(run)
    >>> [round(float(share), 3) for share in found.explained]
    [0.9, 0.1]
    """
    _checks.params(trajectory, "trajectory")
    for leaf in jax.tree.leaves(trajectory):
        if jnp.finfo(jnp.result_type(leaf)).bits < 32:  # no singular values of those in LAPACK
            raise TypeError(f"trajectory: got dtype {jnp.result_type(leaf)}, expected float32 or float64.")
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(trajectory)}
    number = min(counts)[0] if len(counts) == 1 and min(counts) else 0
    if number < 3 or tree.size(trajectory) < 2 * number:
        raise ValueError(
            f"trajectory: got leading axes {sorted(counts)} of {tree.size(trajectory)} numbers in all, expected one"
            " number of points for all leaves, 3 or more, of 2 parameters or more."
        )
    last = jax.tree.map(lambda leaf: leaf[-1], trajectory)
    rows = jax.vmap(lambda point: tree.ravel(jax.tree.map(jnp.subtract, point, last))[0])(trajectory)
    unravel = tree.ravel(last)[1]
    _, sizes, directions = jnp.linalg.svd(rows, full_matrices=False)
    directions = directions[:2]
    squares = jnp.square(sizes / jnp.where(sizes[0] > 0, sizes[0], 1))
    total = jnp.sum(squares)
    explained = squares[:2] / jnp.where(total > 0, total, 1)
    return PrincipalPlane(unravel(directions[0]), unravel(directions[1]), rows @ directions.T, explained)


def eigenvector_plane(
    fun: Callable[..., jax.Array],
    params: PyTree,
    args: tuple = (),
    *,
    key: jax.Array,
    hessian_matrix: Callable[[], jax.Array] | None = None,
) -> EigenvectorPlane:
    """Return the lowest and highest eigenvectors of the Hessian, in float64. Host-level.

    At a saddle the function falls along the first and rises along the second.

    Parameters
    ----------
    fun, params, args
        As for `line`.
    key
        A JAX random key, for the start of Lanczos.
    hessian_matrix
        () -> (P, P) matrix, where there is a faster way to it: `hessian` of `curvature.eigenpairs`.

    Raises
    ------
    TypeError, ValueError
        As `curvature.eigenpairs`; fewer than two parameters.
    RuntimeError
        An eigenpair did not converge, or one beyond may have been missed.

    Examples
    --------
    >>> found = eigenvector_plane(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2), key=jax.random.key(0))
    >>> found.values.round(6).tolist(), abs(found.first).round(6).tolist()
    ([-2.0, 2.0], [0.0, 1.0])
    """
    with precision.float64():
        fun, params, args = precision.traced_problem(fun, params, args)
        if hessian_matrix is not None:
            _checks.function(hessian_matrix, "hessian_matrix", "() -> (P, P) matrix")
        if tree.size(params) < 2:
            raise ValueError("params: got one number, expected two or more: a plane needs two directions.")
        matvec = hessian(fun, params, args)
        pairs = eigenpairs(matvec, params, key, smallest=1, largest=1, hessian=hessian_matrix)
        converged = bool(jnp.all(pairs.converged))
        if not (converged and pairs.complete):
            found = "and there may be others beyond" if converged else "not converged"
            raise RuntimeError(
                f"eigenvectors: residuals {np.asarray(pairs.residuals).tolist()} after {pairs.num_matvecs} products,"
                f" {found}; pass directions of your own to `plane`."
            )
        first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], pairs.vectors) for i in (0, 1))
    return EigenvectorPlane(first, second, np.asarray(pairs.values), np.asarray(pairs.residuals))
