"""The network of `numpy_network` in mlp_jax: SGD from the same start, over the same orders, as one scan."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._shared.numpy_network import Network
from mlp_jax import losses, mlp

Data = tuple[Any, Any]


def as_params(network: Network) -> mlp.Params:
    """Return the weights and biases of a `Network` as parameters of `mlp.forward`."""
    pairs = zip(network.weights, network.biases, strict=True)
    return tuple(mlp.Layer(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in pairs)


def start(network: Network, num_examples: int, epochs: int) -> tuple[mlp.Params, jax.Array]:
    """Return the initial parameters of a `Network` and its orders (epochs, n), drawn from its rng."""
    orders = [network.rng.permutation(num_examples) for _ in range(epochs)]
    return as_params(network), jnp.asarray(np.stack(orders))


def quadratic_loss(params: mlp.Params, inputs: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the mean of ½ Σ (σ(z_L) − y)² over a batch, for sigmoid hidden layers."""
    outputs = jax.nn.sigmoid(mlp.forward(params, inputs, activation=jax.nn.sigmoid))
    return losses.mean(losses.squared_error(outputs, targets), weights)


@functools.partial(jax.jit, static_argnames=("batch_size", "keep"))
def train(
    params: mlp.Params, data: Data, test: Data, orders: jax.Array, rate: jax.Array, batch_size: int, keep: bool = False
) -> tuple[mlp.Params, tuple[jax.Array, mlp.Params | None]]:
    """Return the parameters after SGD over orders (epochs, n), and the number of correct test examples by epoch.

    With `keep`, also return the parameters after each epoch, with a leading axis.
    """

    def update(params: mlp.Params, batch: tuple[jax.Array, ...]) -> tuple[mlp.Params, None]:
        gradient = jax.grad(quadratic_loss)(params, *batch)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient), None

    def epoch(params: mlp.Params, order: jax.Array) -> tuple[mlp.Params, tuple[jax.Array, mlp.Params | None]]:
        # The last batch is padded with examples of weight 0.
        padding = (0, -len(order) % batch_size)
        weights, rows = jnp.pad(jnp.ones(len(order), data[0].dtype), padding), jnp.pad(order, padding)
        targets = jax.nn.one_hot(data[1][rows], params[-1].shape[1], dtype=data[0].dtype)
        cut = (a.reshape(-1, batch_size, *a.shape[1:]) for a in (data[0][rows], targets, weights))
        params, _ = jax.lax.scan(update, params, tuple(cut))
        logits = mlp.forward(params, test[0], activation=jax.nn.sigmoid)
        correct = jnp.sum(losses.accuracy(logits, test[1].astype(int))).astype(int)
        return params, (correct, params if keep else None)

    return jax.lax.scan(epoch, params, orders)


def distance(a: mlp.Params, b: mlp.Params) -> float:
    """Return the largest absolute difference between two sets of parameters."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in pairs)
