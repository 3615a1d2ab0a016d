"""The losses that most benchmarks share: softmax cross-entropy of the tanh network of this package."""

from __future__ import annotations

from typing import Any

import jax

from mlp_jax import losses, mlp, tree

per_example = lambda params, x, y: losses.cross_entropy(mlp.forward(params, x), y)
mean_loss = lambda params, x, y: losses.mean(per_example(params, x, y))


def batch_loss(params: mlp.Params, x: jax.Array, y: jax.Array, weights: jax.Array, key: jax.Array) -> jax.Array:
    """Return the weighted mean, which training minimises."""
    return losses.mean(per_example(params, x, y), weights)


def tilted_loss(params: mlp.Params, x: jax.Array, y: jax.Array, tilt: Any, decay: jax.Array) -> jax.Array:
    """Return the loss with weight decay, minus a linear term that makes a point critical (same Hessian)."""
    return mean_loss(params, x, y) + decay / 2 * tree.dot(params, params) - tree.dot(tilt, params)
