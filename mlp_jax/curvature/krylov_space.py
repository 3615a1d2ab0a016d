"""An orthonormal basis grown by products with a symmetric operator: the compiled inner step of `krylov`.

matfree's `tridiag_sym` builds a whole tridiagonalisation from one vector; a thick restart needs to go on from
Ritz vectors, and a search for missed eigenvalues from a second random vector, so the step is our own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from scipy import linalg

from mlp_jax import tree
from mlp_jax.tree import PyTree

# Coefficients of this many steps at most come back from the device together.
_CHUNK = 64
# A new direction shorter than this many rounding errors of the operator is nothing but rounding.
_BREAKDOWN = 10.0
# Intermediate values of one block of columns of a matrix stay near this size.
_BLOCK_BYTES = 2**26


class Program(NamedTuple):
    """What is compiled for: the traced product, the leaves that it takes, and the dtype to compute in."""

    jaxpr: Any
    num_closed_over: int
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    dtype: Any


class Operator(NamedTuple):
    """A traced matvec: `program` is hashable, and `constants` (data that it closes over) are ordinary arguments."""

    program: Program
    constants: tuple[Any, ...]
    structure: Any

    def size(self) -> int:
        """Return the dimension P."""
        return sum(math.prod(shape) for shape in self.program.shapes)

    def unravel(self, rows: jax.Array) -> PyTree:
        """Return rows (k, P) as a pytree whose leaves have a leading axis of k."""
        return jax.tree.unflatten(self.structure, _leaves(self.program, rows))


def trace(matvec: Callable[[PyTree], PyTree], params: PyTree) -> Operator:
    """Trace a matvec once for each function object, shapes and dtype, data that it closes over kept outside.

    `jax.jit` holds the trace for as long as the function lives, so that a second call finds the same jaxpr; a Partial
    of the same function with other data of the same shapes finds it too.

    Raises
    ------
    TypeError
        The result is not a pytree like params, or the matvec closes over traced values.

    Examples
    --------
    >>> operator = trace(lambda v: 2 * v, jnp.ones(3))
    >>> operator.size(), len(operator.constants)
    (3, 0)
    """
    given = [jnp.result_type(leaf) for leaf in jax.tree.leaves(params)]
    traced = _traced(matvec, params, given)
    returned = [leaf.dtype for leaf in jax.tree.leaves(traced.out_info)]
    dtype = _widest(given + returned)
    if dtype != _widest(given):
        given = [dtype] * len(given)
        traced = _traced(matvec, params, given)
    closed = traced.jaxpr
    if tree.is_traced((closed.consts, _data(matvec))):
        raise TypeError("matvec: got a function of traced values, expected concrete ones; call eigenpairs outside jit.")
    shapes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(params))
    program = Program(closed.jaxpr, len(closed.consts), shapes, tuple(given), dtype)
    return Operator(program, (*closed.consts, *_data(matvec)), jax.tree.structure(params))


def _data(matvec: Callable[[PyTree], PyTree]) -> list[Any]:
    return jax.tree.leaves(matvec) if isinstance(matvec, jax.tree_util.Partial) else []


@jax.jit
def _apply(matvec: Callable[[PyTree], PyTree], vector: PyTree) -> PyTree:
    return matvec(vector)


def _traced(matvec: Callable[[PyTree], PyTree], params: PyTree, dtypes: list[Any]) -> Any:
    leaves, expected = jax.tree.flatten(params)
    like = [jax.ShapeDtypeStruct(jnp.shape(leaf), dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)]
    vector = jax.tree.unflatten(expected, like)
    if isinstance(matvec, jax.tree_util.Partial):
        traced = _apply.trace(matvec, vector)
    else:
        traced = jax.jit(matvec).trace(vector)
    got: Any = jax.tree.structure(traced.out_info)
    if got != expected:
        raise TypeError(f"matvec: got a result of structure {got}, expected that of params, {expected}.")
    for leaf, want in zip(jax.tree.leaves(traced.out_info), like, strict=True):
        if leaf.shape != want.shape or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"matvec: got a result of shape {leaf.shape} and dtype {leaf.dtype},"
                f" expected floating point of shape {want.shape}."
            )
    return traced


def _widest(dtypes: list[Any]) -> Any:
    """Return the widest of some floating dtypes, float32 at least."""
    return jnp.dtype(jnp.float64 if any(dtype == jnp.float64 for dtype in dtypes) else jnp.float32)


def _leaves(program: Program, rows: jax.Array) -> list[jax.Array]:
    """Cut the last axis of rows (..., P) into the leaves of params."""
    ends = np.cumsum([math.prod(shape) for shape in program.shapes])[:-1]
    pieces = zip(jnp.split(rows, ends.tolist(), axis=-1), program.shapes, program.dtypes, strict=True)
    return [piece.reshape(*rows.shape[:-1], *shape).astype(dtype) for piece, shape, dtype in pieces]


def _product(program: Program, constants: tuple[Any, ...], vector: jax.Array) -> jax.Array:
    closed_over, data = constants[: program.num_closed_over], constants[program.num_closed_over :]
    results = core.jaxpr_as_fun(core.ClosedJaxpr(program.jaxpr, closed_over))(*data, *_leaves(program, vector))
    return jnp.concatenate([result.astype(program.dtype).ravel() for result in results])


@functools.partial(jax.jit, static_argnums=0)
def products(program: Program, constants: tuple[Any, ...], rows: jax.Array) -> jax.Array:
    """Return the product with each of rows (k, P), one after another.

    Examples
    --------
    >>> operator = trace(lambda v: 2 * v, jnp.ones(2))
    >>> products(operator.program, operator.constants, jnp.ones((1, 2))).tolist()
    [[2.0, 2.0]]
    """
    return jax.lax.map(functools.partial(_product, program, constants), rows)


@functools.partial(jax.jit, static_argnums=0)
def matrix(program: Program, constants: tuple[Any, ...]) -> jax.Array:
    """Return the operator as a (P, P) matrix, in blocks of columns of bounded memory.

    Examples
    --------
    >>> operator = trace(lambda v: 2 * v, jnp.ones(2))
    >>> matrix(operator.program, operator.constants).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    size = sum(math.prod(shape) for shape in program.shapes)
    nbytes = sum(math.prod(v.aval.shape) * 8 for eqn in program.jaxpr.eqns for v in eqn.outvars)
    block = max(1, min(size, _BLOCK_BYTES // max(1, nbytes)))

    def column(i: jax.Array) -> jax.Array:
        return _product(program, constants, jnp.zeros(size, program.dtype).at[i].set(1))

    return jax.lax.map(column, jnp.arange(size), batch_size=block)


class _Steps(NamedTuple):
    basis: jax.Array
    position: jax.Array
    pending: jax.Array
    scale: jax.Array
    taken: jax.Array
    coefficients: jax.Array
    lengths: jax.Array


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _extend(
    program: Program,
    constants: tuple[Any, ...],
    basis: jax.Array,
    position: jax.Array,
    pending: jax.Array,
    scale: jax.Array,
    steps: jax.Array,
) -> _Steps:
    """Multiply up to `steps` pending rows, the first of them at `position`, and append what is new."""
    rows = len(basis)
    empty = jnp.zeros((_CHUNK, rows), basis.dtype), jnp.zeros(_CHUNK, basis.dtype)
    state = _Steps(basis, position, pending, scale, jnp.zeros_like(position), *empty)

    def step(s: _Steps) -> _Steps:
        product = _product(program, constants, s.basis[s.position])
        # NaN is larger than nothing: it must stay in the scale, where the host sees it.
        scale = jnp.maximum(s.scale, jnp.linalg.norm(product))
        rest, coefficients = _orthogonalise(s.basis, product)
        length = jnp.linalg.norm(rest)
        free = s.position + s.pending
        is_new = (length > _BREAKDOWN * jnp.finfo(basis.dtype).eps * scale) & (free < rows)
        length = jnp.where(is_new, length, 0)
        direction = _normalised(s.basis, rest / jnp.where(is_new, length, 1))
        row = jnp.where(is_new, direction, s.basis[jnp.minimum(free, rows - 1)])
        return _Steps(
            s.basis.at[jnp.minimum(free, rows - 1)].set(row),
            s.position + 1,
            s.pending - 1 + is_new.astype(s.pending.dtype),
            scale,
            s.taken + 1,
            s.coefficients.at[s.taken].set(coefficients),
            s.lengths.at[s.taken].set(length),
        )

    return jax.lax.while_loop(lambda s: (s.taken < steps) & (s.pending > 0), step, state)


def _orthogonalise(basis: jax.Array, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the part of a vector orthogonal to all rows, by Gram–Schmidt done twice, and its coefficients."""
    first = basis @ vector
    vector = vector - first @ basis
    second = basis @ vector
    return vector - second @ basis, first + second


def _normalised(basis: jax.Array, direction: jax.Array) -> jax.Array:
    """Return a unit vector orthogonal to all rows, also where the direction was mostly rounding."""
    off = jnp.linalg.norm(basis @ direction)
    clean = off <= 4 * jnp.finfo(basis.dtype).eps
    direction = jax.lax.cond(clean, lambda d: d, lambda d: _orthogonalise(basis, d)[0], direction)
    return direction / jnp.maximum(jnp.linalg.norm(direction), jnp.finfo(basis.dtype).tiny)


@functools.partial(jax.jit, donate_argnums=0)
def _add_random(basis: jax.Array, key: jax.Array, row: jax.Array) -> jax.Array:
    vector = jax.random.normal(key, basis.shape[1:], basis.dtype)
    vector = _orthogonalise(basis, vector / jnp.linalg.norm(vector))[0]
    return basis.at[row].set(_normalised(basis, vector / jnp.linalg.norm(vector)))


@jax.jit
def _combine(mixing: jax.Array, basis: jax.Array) -> jax.Array:
    return mixing @ basis


class Space:
    """Rows of an orthonormal basis: [frozen | processed | pending | free], and the operator projected on them.

    The product of the operator with a processed row lies in the span of all rows in use, and `coupling[:, i]` holds
    its coefficients: so the residual of any combination of processed rows is known from what it couples to.
    """

    def __init__(self, operator: Operator, key: jax.Array, rows: int):
        self.operator, self.rows = operator, rows
        self.basis = jnp.zeros((rows, operator.size()), operator.program.dtype)
        self.coupling = np.zeros((rows, rows))
        self.frozen = self.position = self.pending = 0
        self.scale, self.products = 0.0, 0
        self._key, self._draws = key, 0
        self._ritz: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def used(self) -> int:
        """Rows that hold a vector."""
        return self.position + self.pending

    def add_random(self) -> None:
        """Append a random direction orthogonal to every row."""
        key = jax.random.fold_in(self._key, self._draws)
        self.basis = _add_random(self.basis, key, np.int32(self.used))
        self.pending, self._draws = self.pending + 1, self._draws + 1

    def extend(self, steps: int) -> None:
        """Multiply up to `steps` pending rows by the operator, fewer when the space is found to be invariant."""
        steps, self._ritz = min(steps, _CHUNK), None
        dtype = self.operator.program.dtype.type
        numbers = np.int32(self.position), np.int32(self.pending), dtype(self.scale), np.int32(steps)
        after = _extend(self.operator.program, self.operator.constants, self.basis, *numbers)
        self.basis = after.basis
        count, scale = int(after.taken), float(after.scale)
        self.products += count
        if not math.isfinite(scale):
            raise ValueError(f"matvec: got NaN or infinity in the first {self.products} products, expected numbers.")
        self.scale = scale
        coefficients, lengths = np.asarray(after.coefficients), np.asarray(after.lengths)
        for column, length in zip(coefficients[:count], lengths[:count], strict=True):
            self._record(column, float(length))

    def _record(self, column: np.ndarray, length: float) -> None:
        self.coupling[:, self.position] = column
        self.coupling[self.used :, self.position] = 0
        if length > 0:
            self.coupling[self.used, self.position] = length
        else:
            self.pending -= 1
        self.position += 1

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Ritz values (ascending), vectors in the coordinates of the processed rows, and residual estimates."""
        if self._ritz is None:
            projected, residual = self._projected()
            values, vectors = np.linalg.eigh(projected)
            self._ritz = values, vectors, np.linalg.norm(residual @ vectors, axis=0)
        return self._ritz

    def estimates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return Ritz values and residual estimates: `ritz` without vectors, faster where nothing was restarted yet."""
        projected, residual = self._projected()
        rounding = _BREAKDOWN * float(jnp.finfo(self.basis.dtype).eps) * self.scale
        if self._ritz is not None or len(projected) < 2 or np.max(np.abs(np.triu(projected, 2))) > rounding:
            values, _, residuals = self.ritz()
            return values, residuals
        values, vectors = linalg.eigh_tridiagonal(np.diag(projected), np.diag(projected, 1))
        return values, np.linalg.norm(residual @ vectors, axis=0)

    def _projected(self) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(self.frozen, self.position)
        projected = self.coupling[rows, rows]
        return (projected + projected.T) / 2, self.coupling[self.position : self.used, rows]

    def restart(self, values: np.ndarray, vectors: np.ndarray, keep_pending: bool = True) -> None:
        """Replace the processed rows by Ritz vectors (a column each); their residuals stay in the pending rows."""
        start, stop, used = self.frozen, self.position, self.used
        pending = np.arange(stop, used if keep_pending else stop)
        kept = start + len(values)
        mixing = np.zeros((self.rows, self.rows))
        mixing[:start, :start] = np.eye(start)
        mixing[start:kept, start:stop] = vectors.T
        mixing[kept + np.arange(len(pending)), pending] = 1
        coupling = mixing @ self.coupling @ mixing.T
        coupling[start:kept, start:kept] = np.diag(values)
        coupling[:, kept:] = 0
        self._replace(mixing, coupling, kept, len(pending))

    def freeze(self) -> int:
        """Set every row in use aside; return how many of them were pending. What follows is orthogonal to all."""
        waiting = self.pending
        self.frozen = self.position = self.used
        self._ritz = None
        self.pending = 0
        return waiting

    def thaw(self, waiting: int, merge: bool) -> None:
        """Undo `freeze`; with `merge` the rows processed since then join those from before, otherwise they go."""
        start, stop, used = self.frozen, self.position, self.used
        before, waiting_rows = np.arange(start - waiting), np.arange(start - waiting, start)
        processed = np.concatenate([before, np.arange(start, stop)]) if merge else before
        pending = np.concatenate([waiting_rows, np.arange(stop, used)]) if merge else waiting_rows
        order = np.concatenate([processed, pending])
        mixing = np.zeros((self.rows, self.rows))
        mixing[np.arange(len(order)), order] = 1
        coupling = mixing @ self.coupling @ mixing.T
        coupling[:, len(processed) :] = 0
        self.frozen = 0
        self._replace(mixing, coupling, len(processed), len(pending))

    def _replace(self, mixing: np.ndarray, coupling: np.ndarray, position: int, pending: int) -> None:
        self.basis = _combine(np.asarray(mixing, self.operator.program.dtype), self.basis)
        self.coupling, self.position, self.pending = coupling, position, pending
        self._ritz = None

    def combine(self, vectors: np.ndarray) -> jax.Array:
        """Return combinations (k, P) of the processed rows, one for each column of `vectors`."""
        mixing = np.zeros((vectors.shape[1], self.rows))
        mixing[:, self.frozen : self.position] = vectors.T
        return _combine(np.asarray(mixing, self.operator.program.dtype), self.basis)
