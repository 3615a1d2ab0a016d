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

from mlp_jax import _checks

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
    _checks.leaves(tree, "tree")
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
            raise TypeError(f"{where}: got {_checks.describe(leaf)}, expected an array.")
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
    _checks.leaves(a, "a")
    _checks.leaves(b, "b")
    _checks.like(b, a, "b", "a")
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
    _checks.key(key)
    _checks.leaves(tree, "tree", floating=True)
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.normal(k, jnp.shape(x), jnp.result_type(x)) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, draws)
