"""A matvec traced once: a program whose arguments, not constants, are the data that the matvec closes over."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from mlp_jax import _checks, _compiled, _parallel
from mlp_jax.curvature import matrices
from mlp_jax.curvature.types import Matvec, PyTree


class Program(NamedTuple):
    """The static part of an operator: the traced product, its leaves, and the dtype to compute in."""

    jaxpr: Any
    num_closed_over: int
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    dtype: Any

    def size(self) -> int:
        """Return the dimension P."""
        return sum(math.prod(shape) for shape in self.shapes)


class Operator(NamedTuple):
    """A traced matvec: `program` is hashable; `constants`, the data that it closes over, are ordinary arguments."""

    program: Program
    constants: tuple[Any, ...]
    structure: Any

    def size(self) -> int:
        """Return the dimension P."""
        return self.program.size()

    def multiply(self, rows: np.ndarray, block: int = 1) -> np.ndarray:
        """Return the products with rows (k, P), `block` at a time and the rest singly."""
        whole = len(rows) // block * block
        starts = [(i, block) for i in range(0, whole, block)] + [(i, 1) for i in range(whole, len(rows))]
        pieces = [rows[i : i + count] for i, count in starts]
        return np.concatenate([_parallel.to_host(_rows(self.program, self.constants, piece)) for piece in pieces])

    def matrix(self) -> np.ndarray:
        """Return the operator as a (P, P) matrix, from P products."""
        return _parallel.to_host(_matrix(self.program, self.constants))

    def unravel(self, rows: np.ndarray) -> PyTree:
        """Return rows (k, P) as a pytree whose leaves have a leading axis of k."""
        return jax.tree.unflatten(self.structure, _leaves(self.program, jnp.asarray(rows)))


def trace(matvec: Matvec, params: PyTree) -> Operator:
    """Trace a matvec, once for each function (also that of a Partial), shapes and dtype, as long as the function lives.

    Raises ValueError if the result is not like params, TypeError if it is not floating or the matvec closes over traced
    values.
    """
    given = [jnp.result_type(leaf) for leaf in jax.tree.leaves(params)]
    traced = _traced(matvec, params, given)
    returned = [leaf.dtype for leaf in jax.tree.leaves(traced.out_info)]
    dtype = _widest(given + returned)
    if dtype != _widest(given):
        given = [dtype] * len(given)
        traced = _traced(matvec, params, given)
    closed = traced.jaxpr
    if _checks.is_traced((closed.consts, _data(matvec))):
        raise TypeError("matvec: got a function of traced values, expected concrete ones; call eigenpairs outside jit.")
    shapes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(params))
    program = Program(closed.jaxpr, len(closed.consts), shapes, tuple(given), dtype)
    return Operator(program, (*closed.consts, *_data(matvec)), jax.tree.structure(params))


def _data(matvec: Matvec) -> list[Any]:
    return jax.tree.leaves(matvec) if isinstance(matvec, jax.tree_util.Partial) else []


@_compiled.while_alive
def _program(function: Callable[..., PyTree]) -> Any:
    """Return the compiled function of the data of a Partial and a vector."""
    get = _compiled.weak(function)
    return jax.jit(lambda args, keywords, vector: get()(*args, vector, **keywords))


def _traced(matvec: Matvec, params: PyTree, dtypes: list[Any]) -> Any:
    leaves, structure = jax.tree.flatten(params)
    like = [jax.ShapeDtypeStruct(jnp.shape(leaf), dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)]
    vector = jax.tree.unflatten(structure, like)
    try:
        if isinstance(matvec, jax.tree_util.Partial):
            traced = _program(matvec.func).trace(matvec.args, matvec.keywords, vector)
        else:
            traced = jax.jit(matvec).trace(vector)
    except TypeError:
        jax.eval_shape(matvec, vector)  # a clearer error if it returns no arrays
        raise
    _checks.like(traced.out_info, vector, "matvec result")
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(traced.out_info)]
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise TypeError(f"matvec: got a result of dtypes {dtypes}, expected floating point.")
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


def multiply_rows(program: Program, constants: tuple[Any, ...], rows: jax.Array) -> jax.Array:
    """Return the products with rows (k, P), together. Transformable."""
    if len(rows) == 1:
        return _product(program, constants, rows[0])[None]
    return jax.vmap(functools.partial(_product, program, constants))(rows)


_rows = _compiled.by_function()(multiply_rows)


@_compiled.by_function()
def _matrix(program: Program, constants: tuple[Any, ...]) -> jax.Array:
    nbytes = sum(math.prod(v.aval.shape) * 8 for eqn in program.jaxpr.eqns for v in eqn.outvars)
    return matrices.rows_of(functools.partial(_product, program, constants), program.size(), program.dtype, nbytes)
