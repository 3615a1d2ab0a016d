"""The exact Hessian of any function of any pytree as a matrix, in column blocks of bounded memory."""

import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _compiled, _parallel, tree
from mlp_jax.curvature import operators, precision
from mlp_jax.curvature.types import Fun, PyTree

# Intermediate values of one block of products stay near this size: larger blocks leave the cache.
_BLOCK_BYTES = 2**26


def dense_hessian(fun: Fun, params: PyTree, args: tuple = (), *, max_bytes: int | None = None) -> jax.Array:
    """Return the Hessian of `fun` as a symmetric (P, P) float64 matrix, in the order of `tree.ravel`.

    H e_i for a block of unit vectors at a time, the gradient linearised once: forward over reverse mode, or reverse
    over reverse if a `jax.custom_vjp` rule has no forward mode. Memory: 3 · 8 P² bytes for the result and its
    transposition, plus, per block, at most 64 MiB or the intermediate values of one Hessian-vector product, whichever
    is more.

    Transformable; outside jit it computes in float64 whatever the caller's default. A second call with the
    same `fun` object and shapes compiles nothing; a fresh closure compiles again.

    Parameters
    ----------
    fun, params, args
        See `hessian`, also for the errors raised; P is the number of parameters.
    max_bytes
        Largest memory to use; half of the machine's if None.

    Raises
    ------
    MemoryError
        The result would not fit in `max_bytes`; nothing has been computed then.

    Examples
    --------
    >>> dense_hessian(lambda x: x["a"] ** 2 * x["b"], {"a": jnp.array(1.0), "b": jnp.array(3.0)}).tolist()
    [[6.0, 2.0], [2.0, 0.0]]
    """
    if _checks.is_traced((params, args)):
        precision.require_scalar_function(fun, params, args)
        require_memory(tree.size(params), max_bytes)
        return _columns(fun, params, args)
    with precision.float64():
        fun, params, args = precision.traced_problem(fun, params, args)
        require_memory(tree.size(params), max_bytes)
        return _compiled_columns(fun, params, args)


def require_memory(
    num_params: int, max_bytes: int | None = None, matrices: int = 3, *, num_columns: int | None = None
) -> None:
    """Raise MemoryError unless `matrices` float64 matrices of side `num_params` (or with `num_columns`) fit."""
    available = machine_bytes() // 2 if max_bytes is None else _checks.integer(max_bytes, "max_bytes")
    needed = matrices * 8 * num_params * (num_params if num_columns is None else num_columns)
    if needed > available:
        what = "Hessian" if num_columns is None else f"Hessian block with {num_columns} columns"
        size = "8 P² bytes" if num_columns is None else "its size"
        raise MemoryError(
            f"A {what} of {num_params} parameters needs {needed / 2**30:.3g} GiB ({matrices} matrices of {size}),"
            f" more than the {available / 2**30:.3g} GiB allowed; use Hessian-vector products (curvature.hessian)."
        )


def as_hessian(given: Any, size: int) -> np.ndarray:
    """Return what a caller's `hessian` returned as float64; TypeError or ValueError unless it is a (P, P) matrix."""
    matrix = np.asarray(_parallel.to_host(_checks.numbers(given, "hessian")), np.float64)
    if matrix.shape != (size, size):
        raise ValueError(f"hessian: got shape {matrix.shape}, expected ({size}, {size}), the number of parameters.")
    return matrix


def fits(num_params: int, matrices: int) -> bool:
    """Return whether `matrices` float64 matrices of side `num_params` fit in half of the machine's memory."""
    return matrices * 8 * num_params**2 <= machine_bytes() // 2


def machine_bytes() -> int:
    """Return the memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@precision.whole_products
def _columns(fun: Fun, params: PyTree, args: tuple) -> jax.Array:
    vector, unravel = tree.ravel(params)

    def of_vector(v: jax.Array) -> jax.Array:
        return fun(unravel(v), *args)

    matvec = operators.linearize_gradient(of_vector, vector)
    matrix = rows_of(matvec, vector.size, vector.dtype, _product_bytes(of_vector, vector))
    return (matrix + matrix.T) / 2


_compiled_columns = _compiled.by_function()(_columns)


def rows_of(matvec: Callable[[jax.Array], jax.Array], size: int, dtype: Any, product_bytes: int) -> jax.Array:
    """Return the products with all unit vectors as rows, in blocks that `product_bytes` of one product bounds."""
    block = max(1, min(size, _BLOCK_BYTES // max(1, product_bytes)))

    def product(i: jax.Array) -> jax.Array:
        return matvec(jnp.zeros(size, dtype).at[i].set(1))

    return jax.lax.map(product, jnp.arange(size), batch_size=block)


def _product_bytes(fun: Fun, vector: jax.Array) -> int:
    """Return an upper bound on the intermediate values of one Hessian-vector product, in bytes."""
    jaxpr = jax.make_jaxpr(lambda v: operators.hessian_product(fun)(v, (), v))(vector)
    avals = [v.aval for eqn in jaxpr.jaxpr.eqns for v in eqn.outvars]
    return sum(math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 4) for aval in avals)
