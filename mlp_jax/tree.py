"""Vector-space operations on pytrees. Transformable."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from mlp_jax import _checks

__all__ = ["dot", "norm", "random_like", "ravel", "size"]
__dir__ = __all__.copy

PyTree = Any


def ravel(tree: PyTree) -> tuple[jax.Array, Callable[[jax.Array], PyTree]]:
    """Return a pytree as one vector, and the function that undoes this. TypeError if a leaf is not an array of numbers.

    The order is that of `jax.tree.leaves`, each leaf in C order: the order of rows in every Hessian
    matrix of this package.

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

    Examples
    --------
    >>> size({"a": jnp.ones(2), "b": jnp.zeros((3, 2))})
    8
    """
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree))


def dot(a: PyTree, b: PyTree) -> jax.Array:
    """Return the inner product Σ aᵢ bᵢ of two pytrees of real numbers.

    TypeError if a leaf is not an array of real numbers, ValueError if the structures or shapes differ.

    Examples
    --------
    >>> float(dot({"a": jnp.ones(2)}, {"a": jnp.arange(2.0)}))
    1.0
    """
    _checks.like(b, a, "b", "a")
    products = jax.tree.map(lambda x, y: jnp.sum(_checks.floats(x, "a") * _checks.floats(y, "b")), a, b)
    return jnp.asarray(sum(jax.tree.leaves(products)))


def norm(a: PyTree) -> jax.Array:
    """Return the Euclidean norm of a pytree of real numbers.

    Examples
    --------
    >>> float(norm({"a": jnp.array([3.0, 4.0])}))
    5.0
    """
    return jnp.sqrt(dot(a, a))


def random_like(key: jax.Array, tree: PyTree) -> PyTree:
    """Return a pytree of independent standard normals with the shapes and floating dtypes of `tree`.

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
