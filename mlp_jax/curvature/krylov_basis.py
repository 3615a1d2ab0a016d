"""Where the vectors of a Krylov basis are kept: in numpy, or split over the devices of a mesh.

Both kinds have the same methods; the "rows" that these take and return are k vectors as the kind holds them: arrays
(k, P) in numpy, split arrays with P first otherwise. In numpy BLAS reads the rows in use and no others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mlp_jax import _checks, devices
from mlp_jax.curvature.traced_operator import Operator, Program, multiply_rows

# Columns of a split basis that are multiplied together, and rows of it that a restart turns at a time.
_PANEL, _STRIP = 32, 1024


class HostBasis:
    """Rows of a basis in numpy.

    Parameters
    ----------
    multiply
        rows (k, P) -> their products (k, P) with the operator.
    size, dtype
        The dimension P, and the floating dtype.
    rows
        Vectors that it can hold.

    Examples
    --------
    >>> basis = HostBasis(lambda rows: 2 * rows, 3, np.float64, 2)
    >>> basis.write(0, basis.place(np.array([[0.0, 3.0, 4.0]])), 5.0)
    >>> basis.multiply(0, 1).tolist()
    [[0.0, 1.2, 1.6]]
    """

    def __init__(self, multiply: Callable[[np.ndarray], np.ndarray], size: int, dtype: Any, rows: int):
        self._multiply, self.size = multiply, size
        self.array = np.zeros((rows, size), dtype)

    @property
    def rows(self) -> int:
        """Vectors that the basis can hold."""
        return len(self.array)

    @property
    def dtype(self) -> Any:
        """The floating dtype."""
        return self.array.dtype

    def place(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of numbers as rows that go with the basis."""
        return rows.astype(self.dtype)

    def multiply(self, start: int, count: int) -> np.ndarray:
        """Return the products of the operator with some rows of the basis."""
        return np.array(self._multiply(self.array[start : start + count]))

    def is_finite(self, rows: np.ndarray) -> bool:
        """Return whether all numbers are finite."""
        return bool(np.all(np.isfinite(rows)))

    def largest(self, rows: np.ndarray) -> float:
        """Return the size of the largest number."""
        return float(np.max(np.abs(rows)))

    def divide(self, rows: np.ndarray, unit: float) -> np.ndarray:
        """Return rows / unit."""
        return rows / self.dtype.type(unit)

    def pick(self, rows: np.ndarray, i: int) -> np.ndarray:
        """Return one of some rows, as rows."""
        return rows[i : i + 1]

    def length(self, row: np.ndarray) -> np.floating:
        """Return the norm of one row."""
        return np.linalg.norm(row)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return the norm of each row."""
        return np.linalg.norm(rows, axis=1)

    def project(self, rows: np.ndarray, first: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows without their parts along basis[first:stop], these parts, and the norms of what is left.

        One pass of the Gram–Schmidt process.
        """
        window = self.array[first:stop]
        parts = rows @ window.T
        rows = rows - parts @ window
        return rows, parts, self.lengths(rows)

    def write(self, at: int, row: np.ndarray, length: float) -> None:
        """Write row (1, P) / length."""
        self.array[at] = row[0] / length

    def combine(self, vectors: np.ndarray, first: int, stop: int) -> np.ndarray:
        """Return combinations (k, P) of basis[first:stop], one for each column of `vectors`, on the host."""
        return vectors.T.astype(self.dtype) @ self.array[first:stop]

    def turn(self, vectors: np.ndarray, first: int, stop: int, used: int) -> None:
        """Replace basis[first:stop] by its combinations, and move basis[stop:used] up behind them."""
        end = first + vectors.shape[1]
        self.array[first:end] = self.combine(vectors, first, stop)
        self.array[end : end + used - stop] = self.array[stop:used].copy()

    def reorder(self, start: int, order: np.ndarray) -> None:
        """Move rows: the new ones from `start` on are the old ones of these numbers."""
        self.array[start : start + len(order)] = self.array[order]


class SplitBasis:
    """Rows of a basis split over devices: each holds P / devices numbers of every vector. Methods as in `HostBasis`.

    A pass of `project` adds (k, rows) numbers and k norms between the devices. `multiply` gathers k vectors of P
    numbers on every device, for the time of the product. What is not a row is the same in every process, so that all
    processes, on equal machines, take the same decisions.

    Parameters
    ----------
    operator
        What multiplies.
    rows
        Vectors that it can hold.
    block
        Vectors that are multiplied together where there are as many, by one program; by another one at a time.
    mesh
        The devices.

    Examples
    --------
    >>> from mlp_jax.curvature import traced_operator
    >>> operator = traced_operator.trace(lambda v: 2 * v, jnp.ones(3))
    >>> basis = SplitBasis(operator, 2, 1, jax.make_mesh((1,), ("devices",)))
    >>> basis.write(0, basis.place(np.array([[0.0, 3.0, 4.0]])), 5.0)
    >>> basis.combine(np.ones((1, 1)), 0, 1).round(4).tolist()
    [[0.0, 0.6000000238418579, 0.800000011920929]]
    """

    def __init__(self, operator: Operator, rows: int, block: int, mesh: Mesh):
        self._operator, self._block, self._mesh = operator, block, mesh
        self.size, self.dtype, self.rows = operator.size(), operator.program.dtype, rows
        shape = (-(-self.size // mesh.size) * mesh.size, -(-rows // _PANEL) * _PANEL)
        zeros = functools.partial(jnp.zeros, shape, self.dtype)
        self.columns = jax.jit(zeros, out_shardings=_splitting(mesh))()

    def place(self, rows: np.ndarray) -> jax.Array:
        """Return rows of numbers as rows that go with the basis."""
        columns = np.zeros((len(self.columns), len(rows)), self.dtype)
        columns[: self.size] = rows.T
        return devices.lay(columns, _splitting(self._mesh))

    def multiply(self, start: int, count: int) -> jax.Array:
        """Return the products of the operator with some rows of the basis."""
        program, constants, mesh = self._operator.program, self._operator.constants, self._mesh
        each = count if count == self._block else 1
        pieces = [
            multiply_split(program, constants, self.columns, at, each, mesh) for at in range(start, start + count, each)
        ]
        return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis=1)

    def is_finite(self, rows: jax.Array) -> bool:
        """Return whether all numbers are finite."""
        return _checks.count_not_finite(rows) == 0

    def largest(self, rows: jax.Array) -> float:
        """Return the size of the largest number."""
        return float(_largest(rows))

    def divide(self, rows: jax.Array, unit: float) -> jax.Array:
        """Return rows / unit."""
        return _divided(rows, unit)

    def pick(self, rows: jax.Array, i: int) -> jax.Array:
        """Return one of some rows, as rows."""
        return rows[:, i : i + 1]

    def length(self, row: jax.Array) -> np.floating:
        """Return the norm of one row."""
        return self.lengths(row)[0]

    def lengths(self, rows: jax.Array) -> np.ndarray:
        """Return the norm of each row."""
        return np.asarray(_lengths(rows, self._mesh))

    def project(self, rows: jax.Array, first: int, stop: int) -> tuple[jax.Array, np.ndarray, np.ndarray]:
        """Return rows without their parts along basis[first:stop], these parts, and the norms of what is left."""
        if first == stop:
            return rows, np.zeros((rows.shape[1], 0)), self.lengths(rows)
        rest, parts, lengths = project_split(self.columns, rows, first, stop, self._mesh)
        return rest, np.asarray(parts)[:, first:stop], np.asarray(lengths)

    def write(self, at: int, row: jax.Array, length: float) -> None:
        """Write row / length."""
        self.columns = _write(self.columns, row, at, length, self._mesh)

    def combine(self, vectors: np.ndarray, first: int, stop: int) -> np.ndarray:
        """Return combinations (k, P) of basis[first:stop], one for each column of `vectors`, on the host."""
        factors = np.zeros((self.columns.shape[1], vectors.shape[1]), self.dtype)
        factors[first:stop] = vectors
        return devices.to_host(_combined(self.columns, factors, self._mesh))[: self.size].T

    def turn(self, vectors: np.ndarray, first: int, stop: int, used: int) -> None:
        """Replace basis[first:stop] by its combinations, and move basis[stop:used] up behind them."""
        factors, end = np.eye(self.columns.shape[1], dtype=self.dtype), first + vectors.shape[1]
        units = factors[:, stop:used].copy()
        factors[:, first:used] = 0
        factors[first:stop, first:end] = vectors
        factors[:, end : end + used - stop] = units
        self.columns = _turned(self.columns, factors, self._mesh)

    def reorder(self, start: int, order: np.ndarray) -> None:
        """Move rows: the new ones from `start` on are the old ones of these numbers."""
        factors = np.eye(self.columns.shape[1], dtype=self.dtype)
        factors[:, start : start + len(order)] = factors[:, order]
        self.columns = _turned(self.columns, factors, self._mesh)


def _splitting(mesh: Mesh) -> NamedSharding:
    return NamedSharding(Mesh(mesh.devices, mesh.axis_names), PartitionSpec(mesh.axis_names))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _largest(rows: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(rows))


@jax.jit
def _divided(rows: jax.Array, unit: jax.Array) -> jax.Array:
    return rows / unit.astype(rows.dtype)


@functools.partial(jax.jit, static_argnames="mesh")
def _lengths(rows: jax.Array, mesh: Mesh) -> jax.Array:
    return jnp.sqrt(devices.sum_over_rows(lambda mine: jnp.sum(mine * mine, axis=0), mesh, rows))


@functools.partial(jax.jit, static_argnames="mesh")
def project_split(
    basis: jax.Array, rows: jax.Array, first: jax.Array, stop: jax.Array, mesh: Mesh
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what `SplitBasis.project` does, with parts along all columns of the basis; one compiled program."""
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

    parts = devices.sum_over_rows(parts_here, mesh, (basis, rows), ends)
    number = jnp.arange(basis.shape[1])
    parts = jnp.where((first <= number) & (number < stop), parts, 0)
    rest = devices.over_rows(rest_here, mesh, (basis, rows), (parts, *ends))
    return rest, parts, _lengths(rest, mesh)


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def _write(basis: jax.Array, row: jax.Array, at: jax.Array, length: jax.Array, mesh: Mesh) -> jax.Array:
    def write(mine: tuple[jax.Array, jax.Array], at: jax.Array, length: jax.Array) -> jax.Array:
        basis, row = mine
        return jax.lax.dynamic_update_slice_in_dim(basis, row / length.astype(row.dtype), at, axis=1)

    return devices.over_rows(write, mesh, (basis, row), (at, length))


@functools.partial(jax.jit, static_argnames="mesh")
def _combined(basis: jax.Array, factors: jax.Array, mesh: Mesh) -> jax.Array:
    return devices.over_rows(_product, mesh, basis, (factors,))


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def _turned(basis: jax.Array, factors: jax.Array, mesh: Mesh) -> jax.Array:
    """Return basis · factors in the place of the basis, a strip at a time."""

    def turn(mine: jax.Array, factors: jax.Array) -> jax.Array:
        height = min(_STRIP, len(mine))

        def strip(i: jax.Array, mine: jax.Array) -> jax.Array:
            # The last strip begins early enough to be full; what it repeats has been turned.
            at = jnp.minimum(i * height, len(mine) - height)
            old = jax.lax.dynamic_slice_in_dim(mine, at, height)
            done = (at + jnp.arange(height) < i * height)[:, None]
            return jax.lax.dynamic_update_slice_in_dim(mine, jnp.where(done, old, _product(old, factors)), at, axis=0)

        return jax.lax.fori_loop(0, -(-len(mine) // height), strip, mine)

    return devices.over_rows(turn, mesh, basis, (factors,))


@functools.partial(jax.jit, static_argnames=("program", "count", "mesh"))
def multiply_split(
    program: Program, constants: tuple[Any, ...], basis: jax.Array, start: jax.Array, count: int, mesh: Mesh
) -> jax.Array:
    """Return the products with columns of a split basis, split again."""
    columns = devices.gather(jax.lax.dynamic_slice_in_dim(basis, start, count, axis=1), mesh)
    products = multiply_rows(program, constants, columns[: program.size()].T).T
    padded = jnp.pad(products, ((0, len(basis) - program.size()), (0, 0)))
    return devices.over_rows(lambda mine: mine, mesh, padded)
