"""A function as a verdict evaluates it: values, gradients, Hessians and Hessian-vector products at a vector."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _compiled, _parallel, curvature, tree
from mlp_jax.critical.evidence.perturbed import perturbed
from mlp_jax.curvature import matrices, operators, signs, tracing, units
from mlp_jax.curvature.types import Fun, HessianMatrix, Progress, PyTree

# Points that a compiled program takes in one call, and numbers in them, at most; it evaluates as many as are given.
_ROWS, _NUMBERS = 16, 2**21
# Products at params that are cheaper than compiling the gradient's linearisation.
_BEFORE_LINEARIZED = 32


@dataclasses.dataclass
class Budget:
    """How many Hessians, or Hessian-vector products, there may be, and how many there were."""

    most: int = 0
    progress: Progress | None = None
    spent: int = 0

    def spend(self, number: int) -> None:
        """Count so many, and report them."""
        self.spent += number
        if self.progress is not None:
            self.progress(min(self.spent, self.most), self.most)

    @property
    def left(self) -> int:
        """How many there may still be, 1 at least."""
        return max(1, self.most - self.spent)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A function at float64 parameters, seen as a function of one vector; `unit` is its unit roundoff.

    Methods that take `seeds`, one for each row, compute rows of positive seed with other roundings; see `perturbed`.
    """

    fun: Fun
    params: PyTree
    args: tuple
    hessian: HessianMatrix | None
    unit: float
    budget: Budget = dataclasses.field(default_factory=Budget)  # of what `multiply` or `matrix` computes

    @functools.cached_property
    def vector(self) -> np.ndarray:
        """The parameters as one vector."""
        return _parallel.to_host(tree.ravel(self.params)[0])

    @functools.cached_property
    def traced(self) -> tracing.Traced:
        """The function as a jaxpr."""
        return tracing.trace(self.fun, self.params, self.args)

    @functools.cached_property
    def growth(self) -> float:
        """Factor by which sums increase rounding: √n for the longest, of n numbers (Higham & Mary 2019)."""
        jaxpr = units.hessian_jaxpr(self.traced, len(jax.tree.leaves(self.params)))
        return max(8.0, float(np.sqrt(tracing.longest_sum(jaxpr))))

    def unravel(self, vector: np.ndarray) -> PyTree:
        """Return a vector as parameters."""
        return tree.ravel(self.params)[1](jnp.asarray(vector))

    def slopes(self, vectors: np.ndarray, seeds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the values (n,) and gradients (n, P) at the rows of `vectors`."""
        return self._by_rows(_slopes, vectors) if seeds is None else self._by_rows(_other_slopes, vectors, seeds=seeds)

    def gradients(self, vectors: np.ndarray) -> np.ndarray:
        """Return the gradient at each row of `vectors`."""
        return self.slopes(vectors)[1]

    def products(self, vectors: np.ndarray, directions: np.ndarray, seeds: np.ndarray | None = None) -> np.ndarray:
        """Return H v, (n, P), at each row of `vectors`, always by automatic differentiation of `fun`."""
        directions = np.broadcast_to(directions, vectors.shape)
        if seeds is None:
            return self._by_rows(_products, vectors, directions)[0]
        return self._by_rows(_other_products, vectors, directions, seeds=seeds)[0]

    def products_here(self, directions: np.ndarray, seeds: np.ndarray | None = None) -> np.ndarray:
        """Return H v, (n, P), at params."""
        return self.products(np.broadcast_to(self.vector, directions.shape), directions, seeds)

    def product(self, direction: np.ndarray) -> np.ndarray:
        """Return H v at params for one direction."""
        return self.products_here(direction[None])[0]

    @functools.cached_property
    def _linear(self) -> Callable[[jax.Array], jax.Array]:
        return _linearized(self.traced, self.params, self.args)

    def multiply(self, directions: np.ndarray) -> np.ndarray:
        """Return H v, (n, P), at params; after some products the gradient is linearised, once for all that follow."""
        if self.budget.spent < _BEFORE_LINEARIZED:
            products = self.products_here(directions)
        else:
            rows = [_parallel.to_host(_product_with(self.traced, self._linear, jnp.asarray(v))) for v in directions]
            products = np.stack(rows)
        self.budget.spend(len(products))
        return products

    def _by_rows(self, program: Callable[..., Any], *rows: np.ndarray, seeds: np.ndarray | None = None) -> Any:
        given = [*rows] if seeds is None else [*rows, seeds.astype(np.uint32)]
        most, blocks = max(1, min(_ROWS, _NUMBERS // len(self.vector))), []
        for first in range(0, len(rows[0]), most):
            blocks.append(self._block(program, [array[first : first + most] for array in given], most))
        return tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True))

    def _block(self, program: Callable[..., Any], given: list[np.ndarray], most: int) -> list[np.ndarray]:
        count = len(given[0])
        filled = [np.zeros((most, *array.shape[1:]), array.dtype) for array in given]
        for whole, array in zip(filled, given, strict=True):
            whole[:count] = array
        results = program(self.traced, self.unit, self.params, self.args, count, *map(jnp.asarray, filled))
        return [_parallel.to_host(result)[:count] for result in results]

    def matrix(self, vector: np.ndarray) -> np.ndarray:
        """Return the Hessian at a vector, symmetric; raise ValueError if it is not a finite (P, P) matrix."""
        if self.hessian is None:
            matrix = _parallel.to_host(curvature.dense_hessian(self.traced, self.unravel(vector), self.args))
        else:
            matrix = matrices.as_hessian(self.hessian(self.unravel(vector), *self.args), len(vector))
        self.budget.spend(1)
        if not np.all(np.isfinite(matrix)):
            name = "fun" if self.hessian is None else "hessian"
            raise ValueError(f"{name}: got {np.sum(~np.isfinite(matrix))} Hessian entries that are NaN or infinite.")
        return matrix if signs.is_symmetric(matrix) else (matrix + matrix.T) / 2


def _slopes_of(fun: Fun, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.value_and_grad(fun)(vector)


def _product_of(fun: Fun, vector: jax.Array, direction: jax.Array) -> tuple[jax.Array]:
    return (operators.hessian_product(fun)(vector, (), direction),)


def _at_first(count: jax.Array, fun: Callable[..., Any], rows: tuple[jax.Array, ...]) -> Any:
    """Return what a function gives at each of the first `count` rows, and 0 at the others, where it is not evaluated.

    One program for any number of rows, because compiling it takes longer than most of its runs.
    """
    fun = jax.jit(fun)  # so that it is traced once
    shapes = jax.eval_shape(fun, *(array[0] for array in rows))

    def fill(number: jax.Array, results: Any) -> Any:
        found = fun(*(array[number] for array in rows))
        return jax.tree.map(lambda whole, row: whole.at[number].set(row), results, found)

    empty = jax.tree.map(lambda s: jnp.zeros((len(rows[0]), *s.shape), s.dtype), shapes)
    return jax.lax.fori_loop(0, count, fill, empty)


def _plain(of: Callable[..., Any]) -> Callable[..., Any]:
    """Return a program that evaluates a function at the first rows."""

    @_compiled.by_function(2)
    def program(
        traced: tracing.Traced, unit: float, params: PyTree, args: tuple, count: jax.Array, *rows: jax.Array
    ) -> Any:
        unravel = tree.ravel(params)[1]
        return _at_first(count, lambda *row: of(lambda v: traced(unravel(v), *args), *row), rows)

    return program


def _otherwise_rounded(of: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same program with other roundings; the last of the rows are their seeds."""

    # Few rows are evaluated, so that compilation time matters more than run time.
    @_compiled.by_function(2, compiler_options={"xla_backend_optimization_level": 0})
    def program(
        traced: tracing.Traced, unit: float, params: PyTree, args: tuple, count: jax.Array, *rows: jax.Array
    ) -> Any:
        unravel = tree.ravel(params)[1]

        def one(*row: jax.Array) -> Any:
            *given, seed = row
            return of(lambda v: perturbed(traced, unit, seed, unravel(v), args), *given)

        return _at_first(count, one, rows)

    return program


_slopes, _other_slopes = _plain(_slopes_of), _otherwise_rounded(_slopes_of)
_products, _other_products = _plain(_product_of), _otherwise_rounded(_product_of)


@_compiled.by_function()
def _linearized(traced: tracing.Traced, params: PyTree, args: tuple) -> Callable[[jax.Array], jax.Array]:
    """Return v ↦ H v as a pytree of what the gradient's linearisation keeps."""
    vector, unravel = tree.ravel(params)
    return operators.linearize_gradient(lambda v: traced(unravel(v), *args), vector)


@_compiled.by_function()
def _product_with(traced: tracing.Traced, linear: Callable[[jax.Array], jax.Array], vector: jax.Array) -> jax.Array:
    return linear(vector)
