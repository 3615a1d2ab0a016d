"""Storage of a Krylov basis: in numpy (`HostBasis`), or split over the devices of a mesh (`SplitBasis`).

"Rows" are k vectors in the basis's own layout: arrays (k, P) in numpy, arrays (P, k) split over devices.
"""

# ruff: noqa: D102 - HostBasis documents the methods whose names do not say enough
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mlp_jax import _parallel
from mlp_jax.curvature.traced_operator import Operator, Program, multiply_rows

# Columns of a split basis that are multiplied together, and rows that a restart replaces at a time.
_PANEL, _STRIP = 32, 1024


class Basis(Protocol):
    """Storage for `rows` vectors of dimension `size`, and the operator that multiplies them."""

    size: int
    rows: int
    dtype: Any

    def place(self, rows: np.ndarray) -> Any: ...
    def multiply(self, start: int, count: int) -> Any: ...
    def largest(self, rows: Any) -> float: ...
    def divide(self, rows: Any, unit: float) -> Any: ...
    def pick(self, rows: Any, i: int) -> Any: ...
    def length(self, row: Any) -> np.floating: ...
    def lengths(self, rows: Any) -> np.ndarray: ...
    def project(self, rows: Any, first: int, stop: int) -> tuple[Any, np.ndarray, np.ndarray]: ...
    def write(self, at: int, row: Any, length: Any) -> None: ...
    def combine(self, vectors: np.ndarray, first: int, stop: int) -> np.ndarray: ...
    def turn(self, vectors: np.ndarray, first: int, stop: int, used: int) -> None: ...
    def reorder(self, start: int, order: np.ndarray) -> None: ...


class HostBasis(Basis):
    """A basis in numpy. `multiply` takes rows (k, P) to their products with the operator."""

    def __init__(self, multiply: Callable[[np.ndarray], np.ndarray], size: int, dtype: Any, rows: int):
        self._multiply, self.size, self.rows = multiply, size, rows
        self.array = np.zeros((rows, size), dtype)
        self.dtype = self.array.dtype

    def place(self, rows: np.ndarray) -> np.ndarray:
        """Return numpy rows (k, P) in the layout of this basis."""
        return rows.astype(self.dtype)

    def multiply(self, start: int, count: int) -> np.ndarray:
        """Return the products of the operator with basis[start : start + count]."""
        return np.array(self._multiply(self.array[start : start + count]))

    def largest(self, rows: np.ndarray) -> float:
        """Return the largest absolute value; NaN or infinity if there is one."""
        return float(np.max(np.abs(rows)))

    def divide(self, rows: np.ndarray, unit: float) -> np.ndarray:
        return rows / self.dtype.type(unit)

    def pick(self, rows: np.ndarray, i: int) -> np.ndarray:
        return rows[i : i + 1]

    def length(self, row: np.ndarray) -> np.floating:
        return np.linalg.norm(row)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        return np.linalg.norm(rows, axis=1)

    def project(self, rows: np.ndarray, first: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows minus their projection on basis[first:stop], its coefficients, and the norms of the rest."""
        window = self.array[first:stop]
        parts = rows @ window.T
        rows = rows - parts @ window
        return rows, parts, self.lengths(rows)

    def write(self, at: int, row: np.ndarray, length: Any) -> None:
        self.array[at] = row[0] / length

    def combine(self, vectors: np.ndarray, first: int, stop: int) -> np.ndarray:
        """Return linear combinations (k, P) of basis[first:stop] in numpy, one for each column of `vectors`."""
        return vectors.T.astype(self.dtype) @ self.array[first:stop]

    def turn(self, vectors: np.ndarray, first: int, stop: int, used: int) -> None:
        """Replace basis[first:stop] by its linear combinations, and move basis[stop:used] up behind them."""
        end = first + vectors.shape[1]
        self.array[first:end] = self.combine(vectors, first, stop)
        self.array[end : end + used - stop] = self.array[stop:used].copy()

    def reorder(self, start: int, order: np.ndarray) -> None:
        """Replace the rows from `start` on by the rows with the numbers in `order`."""
        self.array[start : start + len(order)] = self.array[order]


class SplitBasis(Basis):
    """A basis split over devices: each holds P / devices numbers of every vector.

    A pass of `project` sums (k, rows) numbers and k norms between devices. `multiply` gathers k vectors of P numbers on
    every device: `block` of them in one program, fewer one at a time. All results except rows are the same in every
    process, so that processes on equal machines take the same decisions.
    """

    def __init__(self, operator: Operator, rows: int, block: int, mesh: Mesh):
        self._operator, self._block, self._mesh = operator, block, mesh
        self.size, self.dtype, self.rows = operator.size(), operator.program.dtype, rows
        self.columns = _zeros(-(-self.size // mesh.size) * mesh.size, -(-rows // _PANEL) * _PANEL, self.dtype, mesh)

    def place(self, rows: np.ndarray) -> jax.Array:
        columns = np.zeros((len(self.columns), len(rows)), self.dtype)
        columns[: self.size] = rows.T
        return _parallel.split(columns, self._mesh)

    def multiply(self, start: int, count: int) -> jax.Array:
        program, constants, mesh = self._operator.program, self._operator.constants, self._mesh
        each = count if count == self._block else 1
        starts = range(start, start + count, each)
        pieces = [multiply_split(program, constants, self.columns, at, each, mesh) for at in starts]
        return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis=1)

    def largest(self, rows: jax.Array) -> float:
        return float(_largest(rows))

    def divide(self, rows: jax.Array, unit: float) -> jax.Array:
        return _divided(rows, unit)

    def pick(self, rows: jax.Array, i: int) -> jax.Array:
        return rows[:, i : i + 1]

    def length(self, row: jax.Array) -> np.floating:
        return self.lengths(row)[0]

    def lengths(self, rows: jax.Array) -> np.ndarray:
        return np.asarray(_lengths(rows, self._mesh))

    def project(self, rows: jax.Array, first: int, stop: int) -> tuple[jax.Array, np.ndarray, np.ndarray]:
        if first == stop:
            return rows, np.zeros((rows.shape[1], 0)), self.lengths(rows)
        rest, parts, lengths = project_split(self.columns, rows, first, stop, self._mesh)
        return rest, np.asarray(parts)[:, first:stop], np.asarray(lengths)

    def write(self, at: int, row: jax.Array, length: Any) -> None:
        self.columns = _write(self.columns, row, at, length, self._mesh)

    def combine(self, vectors: np.ndarray, first: int, stop: int) -> np.ndarray:
        factors = np.zeros((self.columns.shape[1], vectors.shape[1]), self.dtype)
        factors[first:stop] = vectors
        return _parallel.to_host(_combined(self.columns, factors, self._mesh))[: self.size].T

    def turn(self, vectors: np.ndarray, first: int, stop: int, used: int) -> None:
        factors, end = np.eye(self.columns.shape[1], dtype=self.dtype), first + vectors.shape[1]
        units = factors[:, stop:used].copy()
        factors[:, first:used] = 0
        factors[first:stop, first:end] = vectors
        factors[:, end : end + used - stop] = units
        self.columns = _turned(self.columns, factors, self._mesh)

    def reorder(self, start: int, order: np.ndarray) -> None:
        factors = np.eye(self.columns.shape[1], dtype=self.dtype)
        factors[:, start : start + len(order)] = factors[:, order]
        self.columns = _turned(self.columns, factors, self._mesh)


# Programs of a split basis: P is on the first axis, split over the devices; each vector is a column.
_on_mesh = functools.partial(jax.jit, static_argnames="mesh")
_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _zeros(height: int, width: int, dtype: Any, mesh: Mesh) -> jax.Array:
    return _parallel.over_rows(lambda mine: jnp.zeros((len(mine), width), dtype), mesh, jnp.arange(height))


_largest = jax.jit(lambda rows: jnp.max(jnp.abs(rows)))
_divided = jax.jit(lambda rows, unit: rows / unit.astype(rows.dtype))


@_on_mesh
def _lengths(rows: jax.Array, mesh: Mesh) -> jax.Array:
    return jnp.sqrt(_parallel.sum_over_rows(lambda mine: jnp.sum(mine * mine, axis=0), mesh, rows))


@_on_mesh
def project_split(
    basis: jax.Array, rows: jax.Array, first: jax.Array, stop: jax.Array, mesh: Mesh
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the result of `SplitBasis.project` with coefficients for all columns of the basis."""
    ends = first // _PANEL, (stop + _PANEL - 1) // _PANEL

    def parts_here(mine: tuple[jax.Array, jax.Array], begin: jax.Array, end: jax.Array) -> jax.Array:
        basis, rows = mine

        def add(i: jax.Array, parts: jax.Array) -> jax.Array:
            window = jax.lax.dynamic_slice_in_dim(basis, i * _PANEL, _PANEL, axis=1)
            return jax.lax.dynamic_update_slice_in_dim(parts, _product(rows.T, window), i * _PANEL, axis=1)

        return jax.lax.fori_loop(begin, end, add, jnp.zeros((rows.shape[1], basis.shape[1]), rows.dtype))

    def rest_here(mine: tuple[jax.Array, jax.Array], parts: jax.Array, begin: jax.Array, end: jax.Array) -> jax.Array:
        basis, rows = mine

        def take(i: jax.Array, rows: jax.Array) -> jax.Array:
            window = jax.lax.dynamic_slice_in_dim(basis, i * _PANEL, _PANEL, axis=1)
            return rows - _product(window, jax.lax.dynamic_slice_in_dim(parts, i * _PANEL, _PANEL, axis=1).T)

        return jax.lax.fori_loop(begin, end, take, rows)

    parts = _parallel.sum_over_rows(parts_here, mesh, (basis, rows), ends)
    number = jnp.arange(basis.shape[1])
    parts = jnp.where((first <= number) & (number < stop), parts, 0)
    rest = _parallel.over_rows(rest_here, mesh, (basis, rows), (parts, *ends))
    return rest, parts, _lengths(rest, mesh)


@functools.partial(_on_mesh, donate_argnums=0)
def _write(basis: jax.Array, row: jax.Array, at: jax.Array, length: jax.Array, mesh: Mesh) -> jax.Array:
    def write(mine: tuple[jax.Array, jax.Array], at: jax.Array, length: jax.Array) -> jax.Array:
        basis, row = mine
        return jax.lax.dynamic_update_slice_in_dim(basis, row / length.astype(row.dtype), at, axis=1)

    return _parallel.over_rows(write, mesh, (basis, row), (at, length))


@_on_mesh
def _combined(basis: jax.Array, factors: jax.Array, mesh: Mesh) -> jax.Array:
    return _parallel.over_rows(_product, mesh, basis, (factors,))


@functools.partial(_on_mesh, donate_argnums=0)
def _turned(basis: jax.Array, factors: jax.Array, mesh: Mesh) -> jax.Array:
    """Return basis · factors in the memory of the basis, a strip at a time."""

    def turn(mine: jax.Array, factors: jax.Array) -> jax.Array:
        height = min(_STRIP, len(mine))

        def strip(i: jax.Array, mine: jax.Array) -> jax.Array:
            # The last strip starts early enough to be full; the rows that it repeats are already replaced.
            at = jnp.minimum(i * height, len(mine) - height)
            old = jax.lax.dynamic_slice_in_dim(mine, at, height)
            done = (at + jnp.arange(height) < i * height)[:, None]
            return jax.lax.dynamic_update_slice_in_dim(mine, jnp.where(done, old, _product(old, factors)), at, axis=0)

        return jax.lax.fori_loop(0, -(-len(mine) // height), strip, mine)

    return _parallel.over_rows(turn, mesh, basis, (factors,))


@functools.partial(jax.jit, static_argnames=("program", "count", "mesh"))
def multiply_split(
    program: Program, constants: tuple[Any, ...], basis: jax.Array, start: jax.Array, count: int, mesh: Mesh
) -> jax.Array:
    """Return the products with columns of a split basis, split again."""
    columns = _parallel.gather(jax.lax.dynamic_slice_in_dim(basis, start, count, axis=1), mesh)
    products = multiply_rows(program, constants, columns[: program.size()].T).T
    padded = jnp.pad(products, ((0, len(basis) - program.size()), (0, 0)))
    return _parallel.over_rows(lambda mine: mine, mesh, padded)
