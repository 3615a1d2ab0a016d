"""Matvecs that are means over examples: all at once, or chunk by chunk in the memory of one chunk.

With a mesh each device processes its own examples, and a product sends one sum of P numbers between them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mlp_jax import _checks, _parallel
from mlp_jax.curvature import precision
from mlp_jax.curvature.types import Matvec, PyTree

# (each, params, examples, shares) ↦ (v ↦ Σ shareᵢ Aᵢ v) for some of the examples. each(function, rows, shared) calls
# function(rows, *shared), which treats every example independently, on this device (`_here`) or split over a mesh.
Build = Callable[[Callable[..., PyTree], PyTree, tuple, jax.Array], Matvec]


class Over(NamedTuple):
    """The arguments `weights`, `chunk_size` and `mesh` of `operators.hessian_of_mean`."""

    weights: jax.Array | None = None
    chunk_size: int | None = None
    mesh: Mesh | None = None


def _here(function: Callable[..., PyTree], rows: PyTree, shared: tuple = ()) -> PyTree:
    return function(rows, *shared)


@precision.whole_products
def over_examples(build: Build, params: PyTree, args: tuple, over: Over) -> Matvec:
    """Return the matvec that `build` makes of all examples at once, or its sum over chunks and devices."""
    chunk_size = None if over.chunk_size is None else _checks.integer(over.chunk_size, "chunk_size")
    num_examples = _checks.count_examples(args)
    shares = _shares(over.weights, num_examples)
    params, examples = jax.tree.map(jnp.asarray, (params, args))
    if over.mesh is None:
        return _by_chunks(build, params, (examples, shares), chunk_size)
    mesh = _parallel.require_mesh(over.mesh)
    examples = _parallel.pad(examples, mesh)
    shares = jnp.pad(shares, (0, len(jax.tree.leaves(examples)[0]) - num_examples))
    examples, shares = _parallel.split((examples, shares), mesh)
    if chunk_size is None:
        return build(
            lambda each, rows, shared=(): _parallel.over_rows(each, mesh, rows, shared), params, examples, shares
        )

    def mine(rows: tuple[tuple, jax.Array], params: PyTree, vector: PyTree) -> PyTree:
        return _by_chunks(build, params, rows, chunk_size)(vector)

    def matvec(vector: PyTree) -> PyTree:
        return _parallel.sum_over_rows(mine, mesh, (examples, shares), (params, vector))

    return precision.whole_products(matvec)


def _by_chunks(build: Build, params: PyTree, rows: tuple[tuple, jax.Array], chunk_size: int | None) -> Matvec:
    """Return the matvec of (examples, shares) on one device."""
    num_rows = len(rows[1])
    if chunk_size is None or chunk_size >= num_rows:
        return build(_here, params, *rows)

    @precision.whole_products
    def matvec(vector: PyTree) -> PyTree:
        def add_chunk(partial: PyTree, start: jax.Array) -> tuple[PyTree, None]:
            # The last chunk starts early enough to be full; the examples that it repeats get weight 0.
            first = jnp.minimum(start, num_rows - chunk_size)
            chunk, shares = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, chunk_size), rows)
            is_new = first + jnp.arange(chunk_size) >= start
            product = build(_here, params, chunk, jnp.where(is_new, shares, 0))(vector)
            return jax.tree.map(jnp.add, partial, product), None

        zeros = jax.tree.map(jnp.zeros_like, vector)
        return jax.lax.scan(add_chunk, zeros, jnp.arange(0, num_rows, chunk_size))[0]

    return matvec


def weighted_sum(values: jax.Array, shares: jax.Array) -> jax.Array:
    """Return Σ share · value; ValueError unless there is one value per example."""
    if values.shape != shares.shape:
        raise ValueError(f"loss: got shape {values.shape} for {shares.size} examples, expected one value each.")
    return jnp.sum(shares.astype(values.dtype) * values)


def _shares(weights: jax.Array | None, num_examples: int) -> jax.Array:
    """Return wᵢ / Σ w."""
    if weights is None:
        return jnp.full(num_examples, 1 / num_examples)
    weights = _checks.numbers(weights, "weights")
    if weights.shape != (num_examples,):
        raise ValueError(f"weights: got shape {weights.shape}, expected ({num_examples},), one per example.")
    if not _checks.is_traced(weights):
        values = np.asarray(_parallel.to_host(weights), dtype=np.float64)
        _checks.weights(values)
        weights = values / values.max()  # so that none is too large for float32
    weights = jnp.asarray(weights).astype(jnp.result_type(float))
    return weights / jnp.sum(weights)


def require_values(values_of: Callable[..., Any], name: str, params: PyTree, args: tuple) -> None:
    """Raise unless `values_of(params, *args)` is one real number per example; nothing is compiled."""

    def total(p: PyTree, *examples: Any) -> jax.Array:
        expected, values = (_checks.count_examples(examples),), values_of(p, *examples)
        if getattr(values, "shape", None) != expected:
            raise ValueError(f"{name}: got {_checks.describe(values)}, expected shape {expected}, one value each.")
        return jnp.sum(values)

    precision.require_scalar_function(total, params, args, name)
