"""Vector-space operations on pytrees, and the checks every public entry point makes of one.

All functions that compute are *transformable*: they work under jit, vmap and grad.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mlp_jax import require

PyTree = Any


def ravel(tree: PyTree) -> tuple[jax.Array, Callable[[jax.Array], PyTree]]:
    """Flatten a pytree to one vector, and return the function that undoes it.

    The order is that of `jax.tree.leaves`, each leaf in C order: the order of rows in every Hessian
    matrix of this package.

    Raises
    ------
    TypeError
        A leaf is not an array of numbers.

    Examples
    --------
    >>> vector, unravel = ravel({"a": jnp.ones(2), "b": jnp.zeros((1, 2))})
    >>> vector.shape, unravel(vector)["b"].shape
    ((4,), (1, 2))
    """
    require_numbers(tree, "tree")
    return ravel_pytree(tree)


def size(tree: PyTree) -> int:
    """Return the number of scalars in a pytree.

    Raises
    ------
    TypeError
        A leaf has no shape, and is no number.

    Examples
    --------
    >>> size({"a": jnp.ones(2), "b": jnp.zeros((3, 2))})
    8
    """
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(getattr(leaf, "shape", None), tuple) and not isinstance(leaf, bool | int | float | complex):
            where = "tree" + jax.tree_util.keystr(path)
            raise TypeError(f"{where}: got {require.describe(leaf)}, expected an array.")
        total += math.prod(np.shape(leaf))
    return total


def dot(a: PyTree, b: PyTree) -> jax.Array:
    """Return the inner product Σ aᵢ bᵢ of two pytrees of the same structure and shapes.

    Raises
    ------
    TypeError, ValueError
        A leaf is not an array of real numbers; the structures or shapes differ.

    Examples
    --------
    >>> float(dot({"a": jnp.ones(2)}, {"a": jnp.arange(2.0)}))
    1.0
    """
    require_numbers(a, "a", real=True)
    require_numbers(b, "b", real=True)
    require_like(b, a, "b", "a")
    return jnp.asarray(sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(_floats(x) * _floats(y)), a, b))))


def _floats(leaf: Any) -> jax.Array:
    """Return a leaf as floating point: products of small integers would wrap around."""
    leaf = jnp.asarray(leaf)
    return leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(jnp.result_type(float))


def norm(a: PyTree) -> jax.Array:
    """Return the Euclidean norm of a pytree.

    Raises
    ------
    TypeError
        A leaf is not an array of real numbers.

    Examples
    --------
    >>> float(norm({"a": jnp.array([3.0, 4.0])}))
    5.0
    """
    return jnp.sqrt(dot(a, a))


def random_like(key: jax.Array, tree: PyTree) -> PyTree:
    """Return a pytree of independent standard normals with the shapes and dtypes of `tree`.

    Raises
    ------
    TypeError, ValueError
        `key` is not a JAX random key; the pytree is empty, or a leaf is not a real floating array.

    Examples
    --------
    >>> random_like(jax.random.key(0), {"a": jnp.ones((2, 3))})["a"].shape
    (2, 3)
    """
    require_key(key)
    require_floating_dtypes(tree, "tree", abstract=True)
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
    dtype = key.dtype if isinstance(key, jax.Array | np.ndarray) else None
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
    require_floating_dtypes(tree, name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_traced(leaf):
            _require_finite(leaf, name + jax.tree_util.keystr(path))


def require_floating_dtypes(tree: PyTree, name: str, *, abstract: bool = False) -> None:
    """Raise as `require_floating`, but let NaN and infinity pass; and shapes without values, if `abstract`.

    Examples
    --------
    >>> require_floating_dtypes({"a": jnp.array([jnp.nan])}, "params")
    """
    require_numbers(tree, name, abstract=abstract, expected="a floating-point array")
    if size(tree) == 0:
        raise ValueError(f"{name}: got an empty pytree, expected at least one floating-point number.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            where = name + jax.tree_util.keystr(path)
            raise _refusal(f"{where}: got dtype {dtype}, expected real floating point.", path)


def require_numbers(
    tree: PyTree, name: str, *, real: bool = False, abstract: bool = False, expected: str = "an array of numbers"
) -> None:
    """Raise TypeError unless all leaves are numbers or arrays of numbers, in a dtype that JAX knows.

    Examples
    --------
    >>> require_numbers({"a": jnp.ones(2), "b": 3}, "params")
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = name + jax.tree_util.keystr(path)
        try:
            dtype = jnp.result_type(leaf)
        except (TypeError, ValueError):
            raise _refusal(f"{where}: got {type(leaf).__name__}, expected {expected}.", path) from None
        is_array = isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)
        is_array &= not isinstance(leaf, np.ma.MaskedArray)
        is_array |= abstract and isinstance(leaf, jax.ShapeDtypeStruct)
        if not is_array or not (require.is_real(dtype) or jnp.issubdtype(dtype, jnp.complexfloating)):
            raise _refusal(f"{where}: got {type(leaf).__name__}, expected {expected}.", path)
        if real and not require.is_real(dtype):
            raise TypeError(f"{where}: got dtype {dtype}, expected real numbers.")
        if isinstance(leaf, int) and abs(leaf) >= 2**31:
            raise TypeError(f"{where}: got {require.describe(leaf)}, expected a number that an array can hold.")


def require_args(args: Any) -> None:
    """Raise unless the further arguments of a function are a tuple of pytrees of numbers, outside jit finite ones.

    Raises
    ------
    TypeError
        `args` is not a tuple, or a leaf is not an array of numbers.
    ValueError
        A leaf holds NaN or infinity.

    Examples
    --------
    >>> require_args((jnp.ones(2), {"targets": jnp.arange(2)}))
    """
    if not isinstance(args, tuple):
        raise TypeError(f"args: got {type(args).__name__}, expected a tuple, as in args=(inputs, targets).")
    require_numbers(args, "args")
    for path, leaf in jax.tree_util.tree_leaves_with_path(args):
        if not is_traced(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            _require_finite(leaf, "args" + jax.tree_util.keystr(path))


def require_like(tree: PyTree, params: PyTree, name: str, of: str = "params") -> None:
    """Raise ValueError unless a pytree has the structure of another, and leaves of the same shapes.

    Examples
    --------
    >>> require_like({"a": jnp.ones(2)}, {"a": jnp.zeros(2)}, "direction")
    """
    require_numbers(tree, name, abstract=True)
    require_numbers(params, of, abstract=True)
    got: Any = jax.tree.structure(tree)
    expected: Any = jax.tree.structure(params)
    if got != expected:
        raise ValueError(f"{name}: got the structure {got}, expected that of {of}, {expected}.")
    pairs = zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(params), strict=True)
    for (path, leaf), other in pairs:
        if np.shape(leaf) != np.shape(other):
            where = name + jax.tree_util.keystr(path)
            raise ValueError(f"{where}: got shape {np.shape(leaf)}, expected that of {of}, {np.shape(other)}.")


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
    return int(np.sum(~np.isfinite(np.asarray(require.numbers(values, "values"), dtype=np.float64))))


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
    require_numbers(args, "args", abstract=True)
    leaves = jax.tree_util.tree_leaves_with_path(args)
    sizes = [(f"args{jax.tree_util.keystr(path)}", jnp.shape(leaf)[:1]) for path, leaf in leaves]
    counts = {size for _, size in sizes}
    if len(counts) != 1 or counts & {(), (0,)}:
        found = ", ".join(f"{where}: {size[0] if size else 'a scalar'}" for where, size in sizes) or "no arrays"
        raise ValueError(f"args: got {found}, expected one number of examples, 1 or more, on the first axis of all.")
    return int(counts.pop()[0])


def _require_finite(leaf: Any, where: str) -> None:
    values = leaf
    if not isinstance(leaf, jax.Array):
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite where x64 is off
            values = np.asarray(leaf).astype(jnp.result_type(leaf))
    bad = count_not_finite(values)
    if bad:
        raise ValueError(f"{where}: got {bad} numbers that are NaN or infinite, expected finite numbers.")


def _refusal(message: str, path: tuple) -> TypeError:
    """Return the error; where the leaf is one of several, with a note on how models are parted."""
    error = TypeError(message)
    if path:
        error.add_note(
            "What is no parameter stays inside fun: nnx.split(model, nnx.Param, ...) and"
            " equinox.partition(model, equinox.is_inexact_array) part a model."
        )
    return error
