"""A function at a point as everything in a verdict sees it: values, gradients, Hessians and products of one vector."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _compiled, curvature, devices, require, tree
from mlp_jax.critical.finders import HessianMatrix
from mlp_jax.critical.perturbed import perturbed
from mlp_jax.curvature import operators, tracing, units
from mlp_jax.tree import PyTree

# Points at which a compiled program evaluates at a time, so that it is compiled once.
_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Problem:
    """A function at float64 parameters, seen as a function of one vector; `unit` is its unit roundoff.

    Where `seeds` are given, a row with one above 0 is computed with all roundings otherwise (see `perturbed`).
    """

    fun: Callable[..., jax.Array]
    params: PyTree
    args: tuple
    hessian: HessianMatrix | None
    unit: float

    @functools.cached_property
    def vector(self) -> np.ndarray:
        """The parameters as one vector."""
        return devices.to_host(tree.ravel(self.params)[0])

    @functools.cached_property
    def traced(self) -> tracing.Traced:
        """The function as a jaxpr."""
        return tracing.trace(self.fun, self.params, self.args)

    @functools.cached_property
    def growth(self) -> float:
        """What sums multiply a rounding by: √n for the longest, of n numbers (Higham & Mary 2019)."""
        jaxpr = units.hessian_jaxpr(self.traced, len(jax.tree.leaves(self.params)))
        return max(8.0, float(np.sqrt(tracing.longest_sum(jaxpr))))

    def unravel(self, vector: np.ndarray) -> PyTree:
        """Return a vector as parameters."""
        return tree.ravel(self.params)[1](jnp.asarray(vector))

    def slopes(self, vectors: np.ndarray, seeds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the values (n,) and gradients (n, P) at the rows of `vectors`."""
        return self._by_rows(_slopes, seeds, vectors)

    def gradients(self, vectors: np.ndarray) -> np.ndarray:
        """Return the gradient at each row of `vectors`."""
        return self.slopes(vectors)[1]

    def products(self, vectors: np.ndarray, directions: np.ndarray, seeds: np.ndarray | None = None) -> np.ndarray:
        """Return H v, (n, P), at each row of `vectors` by automatic differentiation of `fun`, whatever `hessian` is."""
        directions = np.broadcast_to(directions, vectors.shape)
        return self._by_rows(_products, seeds, vectors, directions)[0]

    def product(self, direction: np.ndarray) -> np.ndarray:
        """Return H v at params."""
        return self.products(self.vector[None], direction[None])[0]

    def _by_rows(self, program: Callable[..., Any], seeds: np.ndarray | None, *rows: np.ndarray) -> Any:
        number = len(rows[0])
        seeds = np.zeros(number, np.uint32) if seeds is None else seeds.astype(np.uint32)
        blocks = []
        count = 1 if number == 1 else _ROWS  # two programs at most
        for first in range(0, number, count):
            chosen = np.minimum(np.arange(first, first + count), number - 1)
            given = [jnp.asarray(array[chosen]) for array in (seeds, *rows)]
            results = program(self.traced, self.unit, self.params, self.args, *given)
            blocks.append([devices.to_host(r)[: number - first] for r in results])
        return tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True))

    def matrix(self, vector: np.ndarray) -> np.ndarray:
        """Return the Hessian at a vector, symmetric; raise ValueError if it is not a finite (P, P) matrix."""
        if self.hessian is None:
            matrix = devices.to_host(curvature.dense_hessian(self.traced, self.unravel(vector), self.args))
        else:
            given = devices.to_host(self.hessian(self.unravel(vector), *self.args))
            matrix = np.asarray(require.numbers(given, "hessian"), dtype=np.float64)
        size = len(vector)
        if matrix.shape != (size, size):
            raise ValueError(f"hessian: got shape {matrix.shape}, expected ({size}, {size}), the number of parameters.")
        if not np.all(np.isfinite(matrix)):
            raise ValueError(f"fun: got {np.sum(~np.isfinite(matrix))} Hessian entries that are NaN or infinite.")
        return matrix if np.array_equal(matrix, matrix.T) else (matrix + matrix.T) / 2


@_compiled.by_function(2)
def _slopes(traced: tracing.Traced, unit: float, params: PyTree, args: tuple, seeds: Any, vectors: Any) -> Any:
    unravel = tree.ravel(params)[1]

    def row(given: tuple) -> tuple[jax.Array, jax.Array]:
        seed, vector = given
        return jax.value_and_grad(lambda v: perturbed(traced, unit, seed, unravel(v), args))(vector)

    return jax.lax.map(row, (seeds, vectors))


@_compiled.by_function(2)
def _products(
    traced: tracing.Traced, unit: float, params: PyTree, args: tuple, seeds: Any, vectors: Any, directions: Any
) -> Any:
    unravel = tree.ravel(params)[1]

    def row(given: tuple) -> jax.Array:
        seed, vector, direction = given
        product = operators.hessian_product(lambda v: perturbed(traced, unit, seed, unravel(v), args))
        return product(vector, (), direction)

    return (jax.lax.map(row, (seeds, vectors, directions)),)
