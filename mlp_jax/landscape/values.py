"""A function on lines and planes of params, evaluated at many points at a time. Transformable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax import _checks, _compiled
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Fun, PyTree


def line(
    fun: Fun, params: PyTree, direction: PyTree, offsets: ArrayLike, args: tuple = (), *, chunk_size: int = 64
) -> jax.Array:
    """Return fun(θ + t d, *args) for every t in `offsets`. Transformable.

    A second call with the same `fun` object and the same shapes compiles nothing.

    Parameters
    ----------
    fun
        (params, *args) -> scalar.
    params, direction
        θ and d: pytrees of the same structure and shapes; d is converted to the dtypes of θ.
    offsets
        (n,) finite numbers; the result has this shape.
    args
        Data of `fun`.
    chunk_size
        Number of points evaluated at once under vmap; memory is proportional to it.

    Raises
    ------
    TypeError, ValueError
        `fun` does not return a scalar; the direction does not fit params; a number is not finite.

    Examples
    --------
    >>> line(lambda x: jnp.sum(x**2), jnp.zeros(2), jnp.array([3.0, 4.0]), [0.0, 1.0, 2.0]).tolist()
    [0.0, 25.0, 100.0]
    """
    precision.require_scalar_function(fun, params, args)
    directions = (_checks.direction(direction, params, "direction"),)
    points = _grid(offsets, "offsets")[:, None]
    return _evaluate(fun, params, directions, points, args, chunk_size=_checks.integer(chunk_size, "chunk_size"))


def plane(
    fun: Fun,
    params: PyTree,
    first: PyTree,
    second: PyTree,
    first_offsets: ArrayLike,
    second_offsets: ArrayLike,
    args: tuple = (),
    *,
    chunk_size: int = 64,
) -> jax.Array:
    """Return fun(θ + s a + t b, *args) for every s of `first_offsets` (rows) and t of `second_offsets`. Transformable.

    first, second: the directions a and b, pytrees like params; first_offsets, second_offsets: (n,) and (m,) finite
    numbers; the result is (n, m). Other parameters and errors: see `line`.

    Examples
    --------
    >>> x, y = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> plane(lambda p: p[0] ** 2 - p[1] ** 2, jnp.zeros(2), x, y, [0.0, 1.0], [0.0, 1.0, 2.0]).tolist()
    [[0.0, -1.0, -4.0], [1.0, 0.0, -3.0]]
    """
    precision.require_scalar_function(fun, params, args)
    directions = _checks.direction(first, params, "first"), _checks.direction(second, params, "second")
    rows, columns = _grid(first_offsets, "first_offsets"), _grid(second_offsets, "second_offsets")
    points = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    values = _evaluate(fun, params, directions, points, args, chunk_size=_checks.integer(chunk_size, "chunk_size"))
    return values.reshape(len(rows), len(columns))


def interpolation(
    fun: Fun, start: PyTree, end: PyTree, fractions: ArrayLike, args: tuple = (), *, chunk_size: int = 64
) -> jax.Array:
    """Return fun((1 − t) start + t end, *args) for every t in `fractions`. Transformable.

    Goodfellow, Vinyals & Saxe (2015), "Qualitatively characterizing neural network optimization problems". start, end:
    params of two solutions; fractions: (n,) finite numbers, which extrapolate outside [0, 1]. Other parameters and
    errors: see `line`.

    Examples
    --------
    >>> interpolation(lambda x: jnp.sum(x**2), jnp.array([2.0]), jnp.array([-2.0]), [0.0, 0.5, 1.0]).tolist()
    [4.0, 0.0, 4.0]
    """
    _checks.params(start, "start")
    direction = jax.tree.map(jnp.subtract, _checks.direction(end, start, "end"), start)
    return line(fun, start, direction, fractions, args, chunk_size=chunk_size)


def barrier(values: ArrayLike, fractions: ArrayLike) -> jax.Array:
    """Return the loss barrier of an interpolation: max over t of L(t) − ((1 − t) L(0) + t L(1)). Transformable.

    It is at least 0 (Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis"; in the form of
    Entezari et al. 2022). values: (n,) losses from `interpolation`; fractions: (n,) ascending from 0 to 1 (ValueError
    otherwise, outside jit).

    Examples
    --------
    >>> float(barrier([1.0, 5.0, 2.0], [0.0, 0.5, 1.0]))
    3.5
    """
    values, t = (_checks.floats(a, name) for a, name in ((values, "values"), (fractions, "fractions")))
    if values.ndim != 1 or values.shape != t.shape or len(t) < 2:
        raise ValueError(f"values, fractions: got shapes {values.shape}, {t.shape}, expected two of equal length.")
    if not _checks.is_traced(t):
        known = np.asarray(t)
        if not np.all(np.diff(known) >= 0) or known[0] != 0 or known[-1] != 1:
            raise ValueError(f"fractions: got {known[0]} to {known[-1]}, expected them ascending from 0 to 1.")
    t = t.astype(values.dtype)
    return jnp.max(values - ((1 - t) * values[0] + t * values[-1]))


@_compiled.by_function(static_argnames="chunk_size")
def _evaluate(
    fun: Fun, params: PyTree, directions: tuple[PyTree, ...], offsets: jax.Array, args: tuple, *, chunk_size: int
) -> jax.Array:
    def at(offset: jax.Array) -> jax.Array:
        def moved(leaf: jax.Array, *along: jax.Array) -> jax.Array:
            leaf = jnp.asarray(leaf)
            return leaf + sum(t.astype(leaf.dtype) * d for t, d in zip(offset, along, strict=True))

        return fun(jax.tree.map(moved, params, *directions), *args)

    return jax.lax.map(at, offsets, batch_size=min(chunk_size, len(offsets)))


def _grid(offsets: ArrayLike, name: str) -> jax.Array:
    return jnp.asarray(_checks.numbers(offsets, name, "(n,)", finite=True), jnp.result_type(float))
