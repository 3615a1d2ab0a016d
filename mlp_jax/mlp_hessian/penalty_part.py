"""The Hessian of a penalty, added to a matrix: its diagonal, or a strip of columns or rows at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mlp_jax import tree
from mlp_jax.mlp import Params
from mlp_jax.mlp_hessian import separable

Penalty = Callable[[Params], jax.Array]

# Size of a strip; the whole Hessian of the penalty would be as large as the matrix that it is added to.
_STRIP_BYTES = 2**24


def add(matrix: jax.Array, penalty: Penalty, params: Params, pair: tuple[int, int] | None = None) -> jax.Array:
    """Return matrix + ∂² penalty / ∂θᵢ∂θⱼ for a pair of layers i ≤ j, or for all parameters if None.

    A symmetric block stays symmetric, bit for bit: the lower half of each strip is added as columns, and again as rows.
    """
    diagonal = separable.diagonal(penalty, params)
    if diagonal is not None:
        if pair is not None and pair[0] != pair[1]:
            return matrix
        return _add_diagonal(matrix, tree.ravel(diagonal if pair is None else diagonal[pair[0]])[0])
    variables = params if pair is None else params[pair[1]]
    vector, unravel = tree.ravel(variables)

    def gradient(v: jax.Array) -> jax.Array:
        if pair is None:
            return tree.ravel(jax.grad(penalty)(unravel(v)))[0]
        i, j = pair
        return tree.ravel(jax.grad(penalty)((*params[:j], unravel(v), *params[j + 1 :]))[i])[0]

    _, product = jax.linearize(gradient, vector)
    rows, columns = matrix.shape
    width = max(1, min(columns, _STRIP_BYTES // (matrix.dtype.itemsize * rows)))

    def add_strip(index: jax.Array, result: jax.Array) -> jax.Array:
        # The last strip starts early enough to be full; the columns that it repeats are not added again.
        first = jnp.minimum(index * width, columns - width)
        numbers = first + jnp.arange(width)
        units = (numbers[:, None] == jnp.arange(columns)).astype(matrix.dtype)
        strip = jax.vmap(product, out_axes=1)(units)
        fresh = numbers >= index * width
        if pair is not None and pair[0] != pair[1]:
            return _add_at(result, jnp.where(fresh, strip, 0), (0, first))
        depth = jnp.arange(rows)[:, None] - numbers
        result = _add_at(result, jnp.where(fresh & (depth >= 0), strip, 0), (0, first))
        return _add_at(result, jnp.where(fresh & (depth > 0), strip, 0).T, (first, 0))

    return jax.lax.fori_loop(0, -(-columns // width), add_strip, matrix)


def add_rows(matrix: jax.Array, penalty: Penalty, params: Params) -> jax.Array:
    """Return matrix + ∂² penalty for all parameters, a strip of rows at a time: quick in ball arithmetic."""
    diagonal = separable.diagonal(penalty, params)
    if diagonal is not None:
        return _add_diagonal(matrix, tree.ravel(diagonal)[0])
    vector, unravel = tree.ravel(params)

    def add(numbered: tuple[jax.Array, jax.Array]) -> jax.Array:
        number, row = numbered
        unit = (jnp.arange(vector.size) == number).astype(vector.dtype)
        return row + jax.jvp(jax.grad(lambda v: penalty(unravel(v))), (vector,), (unit,))[1]

    strip = max(1, _STRIP_BYTES // (4 * matrix.dtype.itemsize * vector.size))
    return jax.lax.map(add, (jnp.arange(len(matrix)), matrix), batch_size=strip)


def _add_diagonal(matrix: jax.Array, values: jax.Array) -> jax.Array:
    numbers = jnp.arange(len(values))
    return matrix.at[numbers, numbers].add(values, unique_indices=True, indices_are_sorted=True)


def _add_at(matrix: jax.Array, part: jax.Array, corner: tuple) -> jax.Array:
    there = jax.lax.dynamic_slice(matrix, corner, part.shape)
    return jax.lax.dynamic_update_slice(matrix, there + part, corner)
