"""The values inside a network, and checks shared by the symmetries."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mlp_jax import _checks, _compiled, mlp, tree
from mlp_jax.mlp import Activation, Params


def require_layers(params: Params) -> None:
    """Raise unless params are a tuple of at least one Layer(weight (in, out), bias (out,)).

    Examples
    --------
    >>> require_layers((mlp.Layer(np.ones((2, 3)), np.ones(3)),))
    """
    mlp.require_layers(params)
    _checks.params(params)


def pre_activations(params: Params, inputs: jax.Array, activation: Activation) -> list[jax.Array]:
    """Return z₁, …, z_L, each (n, width of the layer).

    Examples
    --------
    >>> params = mlp.init(jax.random.key(0), (2, 3, 1))
    >>> [z.shape for z in pre_activations(params, jnp.ones((5, 2)), jnp.tanh)]
    [(5, 3), (5, 1)]
    """
    hidden = jnp.asarray(inputs)
    values: list[jax.Array] = []
    for depth, layer in enumerate(params):
        values.append(mlp.affine(activation(values[-1]) if depth else hidden, layer, depth))
    return values


def features(params: Params, inputs: jax.Array, activation: Activation, depth: int) -> jax.Array:
    """Return [a, 1], (n, in + 1): what layer number `depth`, from 0, multiplies by its weight over its bias.

    Examples
    --------
    >>> features(mlp.init(jax.random.key(0), (2, 3, 1)), jnp.ones((5, 2)), jnp.tanh, 1).shape
    (5, 4)
    """
    hidden = jnp.asarray(inputs)
    if depth:
        hidden = activation(pre_activations(params[:depth], inputs, activation)[-1])
    return jnp.concatenate([hidden, jnp.ones_like(hidden[:, :1])], axis=1)


def gradient(fun: Callable[..., jax.Array], vector: ArrayLike, params: Params, args: tuple) -> np.ndarray:
    """Return the gradient of `fun` at a vector, in the order of `tree.ravel` of params. Compiled once for each `fun`.

    Examples
    --------
    >>> params = (mlp.Layer(jnp.ones((1, 1)), jnp.ones(1)),)
    >>> gradient(lambda p: jnp.sum(p[0].bias ** 2), np.ones(2), params, ()).tolist()
    [0.0, 2.0]
    """
    return np.asarray(_gradient(fun, jnp.asarray(vector), params, args))


@_compiled.by_function()
def _gradient(fun: Callable[..., jax.Array], vector: jax.Array, params: Params, args: tuple) -> jax.Array:
    return tree.ravel(jax.grad(fun)(tree.ravel(params)[1](vector), *args))[0]
