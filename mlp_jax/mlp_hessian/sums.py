"""Sums over examples for the block of a pair of layers, as matrix products, and that block in order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax.mlp_hessian.recursion import Derivatives, Pair

Shape = tuple[int, int]  # of a layer's parameters with its bias, if any, as the last row: (in + 1, out) or (in, out)

# Bound on the left factors of one matrix product, for layers with many inputs.
_LEFT_BYTES = 2**25


class Sums(NamedTuple):
    """Sums over examples for one pair of layers i ≤ j, in the order of the matrix products.

    inner
        Σ a[k] a[l] S[o, p]: (k ≤ l pairs, o ≤ p pairs) for i = j, else (k l, o p).
    reach
        Σ a[k] δ[p] ∂a[l]/∂ε[o]: (k, p, o, l), or (o, p, k) if only l = o is not 0; None if not needed.
    """

    inner: jax.Array
    reach: jax.Array | None


def pair_sums(derivatives: Derivatives, pair: Pair) -> Sums:
    """Return the sums of one pair of layers over the examples of a chunk."""
    i, j = pair
    left, right, inner = derivatives.inputs[i], derivatives.inputs[j], derivatives.inner[pair]
    flat = inner.reshape(-1, inner.shape[-1])
    if i == j:
        first, second = np.triu_indices(len(inner))
        return Sums(_products(left, right, np.triu_indices(len(left)), flat[first * len(inner) + second]), None)
    sums = _products(left, right, _all_pairs(left, right), flat)
    if pair not in derivatives.reach:
        return Sums(sums, None)
    reach, delta = derivatives.reach[pair], derivatives.deltas[j]
    if reach.ndim == 2:
        through = _products(reach, delta, _all_pairs(reach, delta), left)
        return Sums(sums, through.reshape(len(reach), len(delta), len(left)))
    through = _products(left, delta, _all_pairs(left, delta), reach.reshape(-1, reach.shape[-1]))
    return Sums(sums, through.reshape(len(left), len(delta), *reach.shape[:2]))


def rows(sums: Sums, here: Shape, there: Shape | None, k: jax.Array) -> jax.Array:
    """Return the rows (outᵢ, Pⱼ) of a block for input k of its first layer; `there` is None if both are one layer."""
    if there is None:
        pairs, units = jnp.asarray(_pair_numbers(here[0])), _pair_numbers(here[1])
        return sums.inner[pairs[k]][:, units].swapaxes(0, 1).reshape(here[1], -1)
    table = sums.inner.reshape(here[0], there[0], here[1], there[1])[k].swapaxes(0, 1)
    if sums.reach is not None:
        through = _reach_rows(sums.reach, k)
        table = table.at[:, : through.shape[1]].add(through)
    return table.reshape(here[1], -1)


def _reach_rows(reach: jax.Array, k: jax.Array) -> jax.Array:
    """Return the sums with ∂a/∂ε for input k as (o, l, p)."""
    if reach.ndim == 4:
        return reach[k].transpose(1, 2, 0)
    return jnp.eye(len(reach), dtype=reach.dtype)[:, :, None] * reach[:, None, :, k]


def _products(a: jax.Array, b: jax.Array, pairs: tuple[np.ndarray, np.ndarray], right: jax.Array) -> jax.Array:
    """Return Σₙ a[k, n] b[l, n] right[m, n] for all pairs (k, l) and all m, some pairs at a time."""
    tile = max(1, _LEFT_BYTES // (a.itemsize * a.shape[1]))
    if tile >= len(pairs[0]):
        return (a[pairs[0]] * b[pairs[1]]) @ right.T

    def product(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return right @ (a[pair[0]] * b[pair[1]])

    return jax.lax.map(product, (jnp.asarray(pairs[0]), jnp.asarray(pairs[1])), batch_size=tile)


def _all_pairs(a: jax.Array, b: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(np.arange(len(a)), len(b)), np.tile(np.arange(len(b)), len(a))


def _pair_numbers(size: int) -> np.ndarray:
    """Return the number of the pair {k, l} among the pairs k ≤ l, as a symmetric (size, size) table."""
    table = np.zeros((size, size), dtype=np.int32)
    first, second = np.triu_indices(size)
    table[first, second] = table[second, first] = np.arange(len(first))
    return table
