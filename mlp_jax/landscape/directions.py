"""Directions: scaled to params, from a training run, and from the Hessian."""

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
    """The plane of a training run.

    first, second
        Orthonormal directions, pytrees like params.
    coordinates
        (t, 2) coordinates of each recorded point, relative to the last.
    explained
        (2,) share of Σ ‖θₜ − θ_last‖² along each.
    """

    first: PyTree
    second: PyTree
    coordinates: jax.Array
    explained: jax.Array


class EigenvectorPlane(NamedTuple):
    """The lowest and highest eigenvalues of the Hessian at a point.

    first, second
        Their unit eigenvectors, pytrees like params.
    values
        (2,) the eigenvalues.
    residuals
        (2,) ‖H v − λ v‖.
    """

    first: PyTree
    second: PyTree
    values: np.ndarray
    residuals: np.ndarray


def filter_normalized(direction: PyTree, params: PyTree, *, axis: int = -1) -> PyTree:
    """Return the direction with each filter scaled to the length of that of params: d ← d ‖w‖ / ‖d‖. Transformable.

    A filter holds the weights of one output unit: a column of a weight (in, out). Leaves with fewer than two axes
    (biases) become zero. It makes pictures of networks of different scales comparable (Li et al. 2018, "Visualizing the
    loss landscape of neural nets", section 4).

    direction, params: pytrees of the same structure and shapes; axis: the axis of output units, -1 in this package and
    in flax, also for convolutions, 0 in equinox and torch.

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
    """Return the direction with each leaf scaled to the length of that of params: d ← d ‖w‖ / ‖d‖. Transformable.

    Biases are scaled too; if a leaf of params is zero, such as an initial bias, so is that of the direction. direction,
    params: pytrees of the same structure and shapes.

    Examples
    --------
    >>> layer_normalized(jnp.array([3.0, 4.0]), jnp.array([0.0, 10.0])).tolist()
    [6.0, 8.0]
    """
    _require_direction(direction, params)
    return jax.tree.map(lambda d, w: _scale(d, w, None), direction, params)


def _require_direction(direction: PyTree, params: PyTree) -> None:
    _checks.leaves(direction, "direction", floating=True)
    _checks.like(direction, params, "direction")


def _scale(d: jax.Array, w: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
    length, wanted = (_length(a, axes) for a in (d, w))
    return d * jnp.where(length > 0, wanted / jnp.where(length > 0, length, 1), 0)


def _length(a: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
    """Return norms over some axes, kept with length 1, without overflow or underflow of squares."""
    largest = jnp.max(jnp.abs(a), axis=axes, keepdims=True, initial=0)
    unit = jnp.where(largest > 0, largest, 1)
    return unit * jnp.sqrt(jnp.sum(jnp.square(a / unit), axis=axes, keepdims=True))


def principal_plane(trajectory: PyTree) -> PrincipalPlane:
    """Return the plane through the last point of a run that is nearest to its points. Transformable.

    The directions are the first two right singular vectors of the rows θₜ − θ_last (Li et al. 2018, section 7). Draw
    the loss with `plane(fun, last, found.first, found.second, …)` and the run as `found.coordinates`. Large shares are
    no evidence by themselves: a random walk in many dimensions has them too (Antognini & Sohl-Dickstein 2018).

    trajectory: the record of a training run, a pytree like params with a leading axis of t points. ValueError if there
    are fewer than three points or two parameters.

    Examples
    --------
    >>> run = {"w": jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]])}
    >>> found = principal_plane(run)
    >>> [round(float(share), 3) for share in found.explained]
    [0.9, 0.1]
    """
    _checks.params(trajectory, "trajectory")
    number = len(jax.tree.leaves(trajectory)[0])
    size = tree.size(trajectory) // number
    if number < 3 or size < 2:
        raise ValueError(f"trajectory: got {number} points of {size} parameters, expected 3 of 2 or more.")
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
        See `line`; ValueError if there are fewer than two parameters.
    hessian_matrix
        () -> (P, P) matrix, if there is a faster way to compute it: see `hessian` of `curvature.eigenpairs`.

    Raises
    ------
    RuntimeError
        An eigenpair did not converge, or eigenvalues beyond may have been missed.

    Examples
    --------
    >>> found = eigenvector_plane(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2), key=jax.random.key(0))
    >>> found.values.round(6).tolist(), abs(found.first).round(6).tolist()
    ([-2.0, 2.0], [0.0, 1.0])
    """
    with precision.float64():
        fun, params, args = precision.traced_problem(fun, params, args)
        matvec = hessian(fun, params, args)
        pairs = eigenpairs(matvec, params, key, smallest=1, largest=1, hessian=hessian_matrix)
        converged = bool(jnp.all(pairs.converged))
        if not (converged and pairs.complete):
            found = "and there may be others beyond" if converged else "not converged"
            raise RuntimeError(
                f"eigenvectors: residuals {np.asarray(pairs.residuals).tolist()} after {pairs.num_matvecs} products,"
                f" {found}; pass your own directions to `plane`."
            )
        first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], pairs.vectors) for i in (0, 1))
    return EigenvectorPlane(first, second, np.asarray(pairs.values), np.asarray(pairs.residuals))
