"""The compiled programs of a function of a pytree, as functions of vectors in numpy. Host-level, float64."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _compiled, _parallel, tree
from mlp_jax.critical.point import Point
from mlp_jax.critical.search import of_pytrees
from mlp_jax.critical.search.contract import End
from mlp_jax.critical.search.following import Found
from mlp_jax.critical.search.minres import Limits, minimum_residual_step
from mlp_jax.critical.search.of_pytrees import Settings
from mlp_jax.curvature import precision, tridiagonal
from mlp_jax.curvature.deflation import Deflation
from mlp_jax.curvature.types import Fun, PyTree

# Dimension of the Krylov spaces; products that a Newton step may take.
_KRYLOV, _SOLUTION = 120, 4000


class Programs(NamedTuple):
    """A function of a pytree, as one of vectors.

    fun, settings, like, args
        As traced; settings of the searches; params of the same structure and shapes, float64; data.
    """

    fun: Fun
    settings: Settings
    like: PyTree
    args: tuple

    @property
    def unit(self) -> float:
        """The unit roundoff of the function."""
        assert self.settings.unit is not None
        return self.settings.unit

    def gradient(self, vector: np.ndarray) -> np.ndarray:
        """Return the gradient (P,)."""
        return np.asarray(_gradient(*self, vector))

    def slope(self, vector: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the value and the gradient (P,)."""
        value, gradient = _slope(*self, vector)
        return float(value), np.asarray(gradient)

    def matrix(self, vector: np.ndarray) -> np.ndarray:
        """Return the Hessian (P, P), symmetric."""
        return np.asarray(_matrix(*self, vector))

    def product(self, vector: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Return the Hessian times a direction (P,)."""
        return np.asarray(_product(*self, vector, direction))

    def newton(self, vector: np.ndarray, gradient: np.ndarray, solved: float, scaling: Deflation | None) -> np.ndarray:
        """Return Newton's step (P,) by products, with a residual below the share `solved` of the gradient."""
        return np.asarray(_newton(*self, vector, gradient, np.float64(solved), scaling))

    def krylov(
        self, vector: np.ndarray, first: np.ndarray, scaling: Deflation
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a basis of a Krylov space of the scaled Hessian, in rows, and the tridiagonal matrix on it."""
        return jax.tree.map(np.asarray, _krylov(*self, vector, first, scaling))

    def ended(self, index: int | None, found: Found, steps: int = 0, scaling: Deflation | None = None) -> Point:
        """Return the point at the end of a search from `like` for an index, as numpy."""
        numbers = np.int32(steps), np.int32(found.reason)
        vector, gradient, count, reason = map(jnp.asarray, (found.vector, found.gradient, *numbers))
        end = End(vector, gradient, count, reason, scaling)
        like, target = jax.tree.map(jnp.asarray, self.like), np.int32(-1 if index is None else index)
        return _parallel.to_host(of_pytrees.compiled_settled(self.fun, self.settings, target, like, self.args, end))


@_compiled.by_function(2)
@precision.whole_products
def _gradient(fun: Fun, settings: Settings, params: PyTree, args: tuple, vector: jax.Array) -> jax.Array:
    return of_pytrees.function_of(fun, settings, params, args).gradient(vector)


@_compiled.by_function(2)
@precision.whole_products
def _slope(fun: Fun, settings: Settings, params: PyTree, args: tuple, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    unravel = tree.ravel(params)[1]
    return jax.value_and_grad(lambda at: fun(unravel(at), *args))(vector)


@_compiled.by_function(2)
@precision.whole_products
def _matrix(fun: Fun, settings: Settings, params: PyTree, args: tuple, vector: jax.Array) -> jax.Array:
    matrix = of_pytrees.function_of(fun, settings, params, args).matrix(vector)
    return (matrix + matrix.T) / 2


@_compiled.by_function(2)
@precision.whole_products
def _product(
    fun: Fun, settings: Settings, params: PyTree, args: tuple, vector: jax.Array, direction: jax.Array
) -> jax.Array:
    gradient = of_pytrees.function_of(fun, settings, params, args).gradient
    return jax.jvp(gradient, (vector,), (direction,))[1]


@_compiled.by_function(2)
@precision.whole_products
def _newton(
    fun: Fun,
    settings: Settings,
    params: PyTree,
    args: tuple,
    vector: jax.Array,
    gradient: jax.Array,
    solved: jax.Array,
    scaling: Deflation | None,
) -> jax.Array:
    _, product = jax.linearize(of_pytrees.function_of(fun, settings, params, args).gradient, vector)
    return minimum_residual_step(product, gradient, Limits(solved, 1e-9, _SOLUTION), scaling=scaling).vector


@_compiled.by_function(2)
@precision.whole_products
def _krylov(
    fun: Fun, settings: Settings, params: PyTree, args: tuple, vector: jax.Array, first: jax.Array, scaling: Deflation
) -> tuple[jax.Array, jax.Array, jax.Array]:
    _, product = jax.linearize(of_pytrees.function_of(fun, settings, params, args).gradient, vector)
    size = min(_KRYLOV, first.size)
    basis, diagonal, beside = tridiagonal.tridiagonalise(lambda v: scaling(product(scaling(v))), first, size)
    return basis, diagonal, beside[:-1]
