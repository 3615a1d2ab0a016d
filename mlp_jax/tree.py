"""Vector-space operations on pytrees, and the checks every public entry point makes of one.

All functions that compute are *transformable*: they work under jit, vmap and grad.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

PyTree = Any


def ravel(tree: PyTree) -> tuple[jax.Array, Callable[[jax.Array], PyTree]]:
    """Flatten a pytree to one vector, and return the function that undoes it.

    The order is that of `jax.tree.leaves`, each leaf in C order: the order of rows in every Hessian
    matrix of this package.

    Examples
    --------
    >>> vector, unravel = ravel({"a": jnp.ones(2), "b": jnp.zeros((1, 2))})
    >>> vector.shape, unravel(vector)["b"].shape
    ((4,), (1, 2))
    """
    return ravel_pytree(tree)


def size(tree: PyTree) -> int:
    """Return the number of scalars in a pytree.

    Examples
    --------
    >>> size({"a": jnp.ones(2), "b": jnp.zeros((3, 2))})
    8
    """
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))


def dot(a: PyTree, b: PyTree) -> jax.Array:
    """Return the inner product Σ aᵢ bᵢ of two pytrees of the same structure.

    Examples
    --------
    >>> float(dot({"a": jnp.ones(2)}, {"a": jnp.arange(2.0)}))
    1.0
    """
    return jnp.asarray(sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b))))


def norm(a: PyTree) -> jax.Array:
    """Return the Euclidean norm of a pytree.

    Examples
    --------
    >>> float(norm({"a": jnp.array([3.0, 4.0])}))
    5.0
    """
    return jnp.sqrt(dot(a, a))


def random_like(key: jax.Array, tree: PyTree) -> PyTree:
    """Return a pytree of independent standard normals with the shapes and dtypes of `tree`.

    Examples
    --------
    >>> random_like(jax.random.key(0), {"a": jnp.ones((2, 3))})["a"].shape
    (2, 3)
    """
    require_key(key)
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.normal(k, jnp.shape(x), jnp.result_type(x)) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)


def is_traced(tree: PyTree) -> bool:
    """Return whether any leaf is a tracer, so that values cannot be looked at.

    Examples
    --------
    >>> is_traced({"a": jnp.ones(2)})
    False
    """
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def require_key(key: Any) -> None:
    """Raise TypeError unless `key` is one JAX random key (typed, or the older two-word uint32 form).

    Examples
    --------
    >>> require_key(jax.random.key(0))
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if key.shape == ():
            return
        raise TypeError(f"key: got keys of shape {key.shape}, expected a single key; use jax.vmap for many.")
    if dtype == jnp.uint32 and key.shape == (2,):
        return
    got = type(key).__name__ if dtype is None else f"an array of dtype {dtype} and shape {key.shape}"
    raise TypeError(f"key: got {got}, expected a JAX random key such as jax.random.key(0).")


def require_floating(tree: PyTree, name: str = "params") -> None:
    """Raise unless `tree` has at least one scalar, and all leaves are real floating arrays of finite numbers.

    Finiteness is checked where values can be looked at, that is outside jit.

    Raises
    ------
    TypeError
        A leaf is not a real floating-point array.
    ValueError
        The pytree is empty, or a leaf holds NaN or infinity.

    Examples
    --------
    >>> require_floating({"a": jnp.ones(2)})
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if size(tree) == 0:
        raise ValueError(f"{name}: got an empty pytree, expected at least one floating-point number.")
    for path, leaf in leaves:
        where = name + jax.tree_util.keystr(path)
        try:
            dtype = jnp.result_type(leaf)
        except TypeError:
            raise _refusal(f"{where}: got {type(leaf).__name__}, expected a floating-point array.", path) from None
        if not jnp.issubdtype(dtype, jnp.floating):
            raise _refusal(f"{where}: got dtype {dtype}, expected real floating point.", path)
        if not is_traced(leaf):
            bad = count_not_finite(leaf)
            if bad:
                raise ValueError(f"{where}: got {bad} numbers that are NaN or infinite, expected finite numbers.")


def count_not_finite(values: Any) -> int:
    """Return how many numbers of an array are NaN or infinite. Host-level; the same in every process that holds it.

    Examples
    --------
    >>> count_not_finite(jnp.array([1.0, jnp.nan, jnp.inf]))
    2
    """
    if isinstance(values, jax.Array) and not (values.is_fully_addressable or values.is_fully_replicated):
        with jax.ensure_compile_time_eval():
            return int(_count_not_finite(values))
    return int(np.sum(~np.isfinite(np.asarray(values, dtype=np.float64))))


@jax.jit
def _count_not_finite(values: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(values))


def count_examples(args: tuple) -> int:
    """Return the number of examples, the length of the first axis of every array in args; raise if they differ.

    Examples
    --------
    >>> count_examples((jnp.ones((3, 2)), {"y": jnp.ones(3)}))
    3
    """
    leaves = jax.tree_util.tree_leaves_with_path(args)
    sizes = [(f"args{jax.tree_util.keystr(path)}", jnp.shape(leaf)[:1]) for path, leaf in leaves]
    counts = {size for _, size in sizes}
    if len(counts) != 1 or counts & {(), (0,)}:
        found = ", ".join(f"{where}: {size[0] if size else 'a scalar'}" for where, size in sizes) or "no arrays"
        raise ValueError(f"args: got {found}, expected one number of examples, 1 or more, on the first axis of all.")
    return int(counts.pop()[0])


def _refusal(message: str, path: tuple) -> TypeError:
    """Return the error; where the leaf is one of several, with a note on how models are parted."""
    error = TypeError(message)
    if path:
        error.add_note(
            "What is no parameter stays inside fun: nnx.split(model, nnx.Param, ...) and"
            " equinox.partition(model, equinox.is_inexact_array) part a model."
        )
    return error
