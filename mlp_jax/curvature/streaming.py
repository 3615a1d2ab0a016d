"""Matvecs that are means over examples: all at once, or chunk by chunk with the memory of one chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import tree
from mlp_jax.curvature import precision
from mlp_jax.tree import PyTree

Matvec = Callable[[PyTree], PyTree]


def over_examples(
    build: Callable[[PyTree, tuple, jax.Array], Matvec],
    params: PyTree,
    args: tuple,
    weights: jax.Array | None,
    chunk_size: int | None,
) -> Matvec:
    """Return the matvec that `build` makes of all examples at once, or its sum over chunks of them.

    `build(params, examples, shares)` makes v ↦ Σ shareᵢ Aᵢ v for some of the examples; the shares wᵢ / Σ w add up to
    1 over all. A chunk's matvec is made anew in every product, so that nothing of it is kept.

    Examples
    --------
    >>> squares = lambda p, examples, shares: lambda v: v * jnp.sum(shares * examples[0] ** 2)
    >>> float(over_examples(squares, jnp.ones(()), (jnp.array([1.0, 2.0, 4.0]),), None, 2)(jnp.array(3.0)))
    21.0
    """
    if chunk_size is not None:
        require_whole_number(chunk_size, "chunk_size")
    examples, num_examples = jax.tree.map(jnp.asarray, args), tree.count_examples(args)
    shares = _shares(weights, num_examples)
    if chunk_size is None or chunk_size >= num_examples:
        return build(params, examples, shares)

    def matvec(vector: PyTree) -> PyTree:
        def add_chunk(partial: PyTree, start: jax.Array) -> tuple[PyTree, None]:
            # The last chunk begins early enough to be full; examples that it repeats get weight 0.
            first = jnp.minimum(start, num_examples - chunk_size)
            chunk, chunk_shares = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, first, chunk_size), (examples, shares)
            )
            is_new = first + jnp.arange(chunk_size) >= start
            product = build(params, chunk, jnp.where(is_new, chunk_shares, 0))(vector)
            return jax.tree.map(jnp.add, partial, product), None

        zeros = jax.tree.map(jnp.zeros_like, vector)
        return jax.lax.scan(add_chunk, zeros, jnp.arange(0, num_examples, chunk_size))[0]

    return matvec


def weighted_sum(values: jax.Array, shares: jax.Array) -> jax.Array:
    """Return Σ share · value, after a check that there is one value an example.

    Examples
    --------
    >>> float(weighted_sum(jnp.array([1.0, 3.0]), jnp.array([0.5, 0.5])))
    2.0
    """
    if values.shape != shares.shape:
        raise ValueError(
            f"loss: got values of shape {values.shape} for {shares.size} examples, expected one value an example."
        )
    return jnp.sum(shares.astype(values.dtype) * values)


def _shares(weights: jax.Array | None, num_examples: int) -> jax.Array:
    """Return wᵢ / Σ w."""
    if weights is None:
        return jnp.full(num_examples, 1 / num_examples)
    if jnp.shape(weights) != (num_examples,):
        raise ValueError(f"weights: got shape {jnp.shape(weights)}, expected ({num_examples},), one an example.")
    if not tree.is_traced(weights):
        values = np.asarray(weights, dtype=np.float64)
        if not np.all((values >= 0) & (values < np.inf)) or not np.any(values):
            raise ValueError(
                f"weights: got numbers from {values.min()} to {values.max()},"
                " expected finite ones of 0 or more, at least one above 0."
            )
    weights = jnp.asarray(weights).astype(jnp.result_type(float))
    return weights / jnp.sum(weights)


def require_values(values_of: Callable[..., Any], name: str, params: PyTree, args: tuple) -> None:
    """Raise unless `values_of(params, *args)` is one real number an example; nothing is compiled.

    Examples
    --------
    >>> require_values(lambda p, x: p * x, "values", jnp.ones(()), (jnp.ones(3),))
    """

    def total(p: PyTree, *examples: Any) -> jax.Array:
        num_examples, values = tree.count_examples(examples), values_of(p, *examples)
        shape, dtype = getattr(values, "shape", None), getattr(values, "dtype", None)
        if shape != (num_examples,):
            got = type(values).__name__ if shape is None else f"shape {shape}"
            raise ValueError(f"{name}: got a result of {got}, expected shape ({num_examples},), one value an example.")
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{name}: got values of dtype {dtype}, expected real floating point.")
        return jnp.sum(values)

    precision.require_scalar_function(total, params, args)


def require_function(value: Any, name: str, signature: str) -> None:
    """Raise TypeError unless `value` can be called.

    Examples
    --------
    >>> require_function(len, "size", "(list) -> number")
    """
    if not callable(value):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a function {signature}.")


def require_whole_number(value: Any, name: str) -> None:
    """Raise TypeError or ValueError unless `value` is a whole number of 1 or more.

    Examples
    --------
    >>> require_whole_number(3, "chunk_size")
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: got {value!r}, expected a whole number of 1 or more.")
    if value < 1:
        raise ValueError(f"{name}: got {value}, expected 1 or more.")
