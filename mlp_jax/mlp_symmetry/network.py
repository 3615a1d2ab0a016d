"""The values inside a network, and the gradient of its loss at a vector."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mlp_jax import _compiled, tree
from mlp_jax.mlp import Activation, Params


def pre_activations(params: Params, inputs: jax.Array, activation: Activation) -> list[jax.Array]:
    """Return z₁, …, z_L, each (n, width of the layer)."""
    hidden = jnp.asarray(inputs)
    values: list[jax.Array] = []
    for depth, layer in enumerate(params):
        values.append((activation(values[-1]) if depth else hidden) @ layer.weight + layer.bias)
    return values


def features(params: Params, inputs: jax.Array, activation: Activation, depth: int) -> jax.Array:
    """Return [a, 1], (n, in + 1): the input of layer number `depth`, from 0, with a 1 appended for the bias."""
    hidden = jnp.asarray(inputs)
    if depth:
        hidden = activation(pre_activations(params[:depth], inputs, activation)[-1])
    return jnp.concatenate([hidden, jnp.ones_like(hidden[:, :1])], axis=1)


@_compiled.by_function()
def gradient(fun: Callable[..., jax.Array], vector: jax.Array, params: Params, args: tuple) -> jax.Array:
    """Return the gradient of `fun` at a vector in the order of `tree.ravel` of params. Compiled once per `fun`."""
    return tree.ravel(jax.grad(fun)(tree.ravel(params)[1](vector), *args))[0]
