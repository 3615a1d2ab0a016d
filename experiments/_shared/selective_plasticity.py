"""Training with selective synaptic plasticity in many lanes: important parameters are held near their start."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import losses, mlp, mlp_hessian, penalties, training
from mlp_jax.datasets import Examples


@functools.partial(jax.jit, static_argnames=("seeds", "sizes"), compiler_options={"xla_backend_optimization_level": 0})
def draw_starts(key: jax.Array, seeds: int, sizes: tuple[int, ...]) -> tuple[jax.Array, mlp.Params]:
    """Return the training key and the initial parameters of each seed."""
    keys, init_keys = jnp.swapaxes(jax.vmap(jax.random.split)(jax.random.split(key, seeds)), 0, 1)
    return keys, jax.vmap(functools.partial(mlp.init, sizes=sizes))(init_keys)


@functools.partial(jax.jit, static_argnames="epochs")
def learn(
    keys: jax.Array, starts: mlp.Params, data: Examples, weights: mlp.Params, strengths: Any, rates: Any, epochs: int
) -> tuple[mlp.Params, jax.Array]:
    """Train from every start with each pair of strength λ and rate; return params and divergence (pairs, seeds, ...).

    `keys`, `starts`, `data` and the importances `weights` have a leading axis of seeds.
    """

    def one(strength: Any, rate: Any, key: Any, start: mlp.Params, examples: Examples, weights: mlp.Params) -> Any:
        def loss(params: mlp.Params, x: jax.Array, y: jax.Array, shares: jax.Array, _: jax.Array) -> jax.Array:
            held = penalties.selective_synaptic_plasticity(params, strength, reference=start, importances=weights)
            return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), shares) + held

        optimizer = optax.adam(rate)
        params, history = training.train(key, loss, start, examples, optimizer=optimizer, batch_size=32, epochs=epochs)
        return params, history.diverged_at > 0

    each_seed = jax.vmap(one, in_axes=(None, None, 0, 0, 0, 0))
    each = jax.vmap(each_seed, in_axes=(0, 0, None, None, None, None))
    return each(strengths, rates, keys, starts, data, weights)


@jax.jit
def accuracy(params: mlp.Params, examples: Examples) -> jax.Array:
    """Return the accuracy (pairs, seeds) of params with those leading axes."""

    def one(params: mlp.Params, data: Examples) -> jax.Array:
        return losses.mean(losses.accuracy(mlp.forward(params, data.inputs), data.targets))

    return jax.vmap(jax.vmap(one), in_axes=(0, None))(params, examples)


def diagonals(params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> dict[str, np.ndarray]:
    """Return the diagonals (P,) of the Fisher matrix and of the exact Hessian of the mean cross-entropy.

    The Fisher matrix of softmax outputs is the Gauss–Newton part of that Hessian (Martens 2020, section 9).
    """
    part = functools.partial(mlp_hessian.dense, params, inputs, targets, loss=losses.cross_entropy)
    fisher = np.diag(part(residual=False))
    return {"Fisher": fisher, "Hessian": fisher + np.diag(part(gauss_newton=False))}
