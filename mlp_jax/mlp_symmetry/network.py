"""The values inside a network, and the gradient of its loss at a vector."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks, _compiled, tree
from mlp_jax.mlp import Layer, Params, PerLayer


def pre_activations(params: Params, inputs: jax.Array, activation: PerLayer) -> list[jax.Array]:
    """Return z₁, …, z_L, each (n, width of the layer)."""
    values = [params[0].affine(jnp.asarray(inputs))]
    for phi, layer in zip(activation, params[1:], strict=True):
        values.append(layer.affine(phi(values[-1])))
    return values


def features(params: Params, inputs: jax.Array, activation: PerLayer, depth: int) -> jax.Array:
    """Return the input of layer number `depth`, from 0, with a 1 appended if it has a bias: [a, 1], (n, in + 1)."""
    hidden = jnp.asarray(inputs)
    if depth:
        hidden = activation[depth - 1](pre_activations(params[:depth], inputs, activation[: depth - 1])[-1])
    return params[depth].extend(hidden)


def entering(layer: Layer) -> Any:
    """Return the incoming weights of each pre-activation, and its bias if there is one, as a column."""
    of = jnp if _checks.is_traced(layer) else np
    return of.concatenate([of.atleast_2d(leaf) for leaf in jax.tree.leaves(layer)])


@_compiled.by_function()
def gradient(fun: Callable[..., jax.Array], vector: jax.Array, params: Params, args: tuple) -> jax.Array:
    """Return the gradient of `fun` at a vector in the order of `tree.ravel` of params. Compiled once per `fun`."""
    return tree.ravel(jax.grad(fun)(tree.ravel(params)[1](vector), *args))[0]
