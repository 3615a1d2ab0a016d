"""Descents from critical points of a function of a pytree, and the critical points where they end. Host-level."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _parallel, tree
from mlp_jax.critical.point import Point
from mlp_jax.critical.search import flow
from mlp_jax.critical.search.contract import Reason
from mlp_jax.critical.search.following import Found
from mlp_jax.critical.search.levenberg_marquardt import levenberg_marquardt
from mlp_jax.critical.search.of_pytrees import Settings
from mlp_jax.critical.search.programs import Programs
from mlp_jax.curvature import matrices, precision, units
from mlp_jax.curvature.types import Fun, HessianMatrix, Progress, PyTree

# Dense matrices held at once.
_MATRICES = 8


class Descent(NamedTuple):
    """A descent of the gradient flow from a critical point.

    end
        The critical point where it ends; `converged` is False where that is not known.
    path
        params with a leading axis t: points of the descent, from the critical point above on.
    values
        (t,) values of the function there, falling.
    """

    end: Point
    path: PyTree
    values: np.ndarray


class Problem(Programs):
    """A function of a pytree, as one of vectors, and its descents."""

    @classmethod
    def of(cls, fun: Fun, like: PyTree, args: tuple, hessian: HessianMatrix | None) -> Problem:
        """Return the problem, with the checks of a public function."""
        if hessian is not None:
            _checks.function(hessian, "hessian", "(params, *args) -> (P, P)")
        matrices.require_memory(tree.size(like), matrices=_MATRICES)
        with precision.float64():
            traced, like, args = precision.traced_problem(fun, like, args)
            unit = units.traced_unit(traced, like)
            like, args = jax.tree.map(jnp.asarray, (like, args))  # once, not at every call
        return cls(traced, Settings(levenberg_marquardt, hessian, 1, None, unit=unit), like, args)

    def vector(self, params: PyTree) -> np.ndarray:
        """Return params as one vector."""
        return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(params)])

    def params(self, vectors: np.ndarray) -> PyTree:
        """Return (P,) or (t, P) vectors as params, with a leading axis t."""
        leaves, structure = jax.tree.leaves(self.like), jax.tree.structure(self.like)
        parts = np.split(vectors, np.cumsum([leaf.size for leaf in leaves])[:-1], axis=-1)
        shapes = [(*vectors.shape[:-1], *leaf.shape) for leaf in leaves]
        reshaped = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return jax.tree.unflatten(structure, reshaped)

    def settled(self, vector: np.ndarray, like: np.ndarray | None = None) -> Point:
        """Return the critical point at a vector, after Newton's last steps; not converged where there is none.

        The gradient is rounded as that of parameters of typical size is: the size of `like` or of the point itself or,
        if that is too small, 1.
        """
        with precision.float64():
            typical = float(np.sqrt(np.mean((vector if like is None else like) ** 2)))
            point = self._settled(vector, typical)
            return point if point.converged or typical >= 1 else self._settled(vector, 1.0)

    def _settled(self, vector: np.ndarray, typical: float) -> Point:
        there = Found(vector, self.slope(vector)[1], None, Reason.NO_DESCENT)
        return self._replace(like=self.params(np.maximum(np.abs(vector), typical))).ended(None, there)

    def descended(self, above: np.ndarray, directions: np.ndarray, progress: Progress | None = None) -> list[Descent]:
        """Return the descents from a critical point in the directions, (n, P) unit vectors of its unstable space."""
        found = []
        for direction in directions:
            found.append(self._descent(above, direction))
            if progress is not None:
                progress(len(found), len(directions))
        return found

    def _descent(self, above: np.ndarray, direction: np.ndarray) -> Descent:
        ignored = np.errstate(over="ignore", invalid="ignore")
        with precision.float64(), _parallel.one_blas_thread(), ignored:
            found = flow.descend(self.slope, self.matrix, above, direction)
            last = found.path[-1]
            end = self.settled(last, above)
            place = self.vector(end.params)
            close = np.linalg.norm(place - last) <= 2 * found.step
            if not (close and end.converged and known_index(end) in (-1, found.negative)):
                no: Any = np.zeros((), bool)
                nowhere = dataclasses.replace(end, params=self.params(last), converged=no, reached=no)
                return Descent(nowhere, self.params(found.path), found.values)
            path = np.vstack([found.path, place])
            return Descent(end, self.params(path), np.append(found.values, self.slope(place)[0]))


def directions(matrix: np.ndarray, index: int, key: jax.Array, number: int) -> np.ndarray:
    """Return unit vectors of the unstable space: both ways for index 1, else random opposite pairs, uniform on it."""
    modes = np.linalg.eigh(matrix)[1][:, :index].T
    if index == 1:
        return np.vstack([modes, -modes])
    with precision.float64():
        draws = np.asarray(jax.random.normal(key, (-(-number // 2), index)))
    ways = (draws / np.linalg.norm(draws, axis=1, keepdims=True)) @ modes
    return np.vstack([ways, -ways])[:number]


def known_index(point: Point) -> int:
    """Return the index of a critical point; −1 where it is not known or the point is not critical."""
    return -1 if point.index is None or not point.converged else int(point.index)
