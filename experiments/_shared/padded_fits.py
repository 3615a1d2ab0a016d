"""ReLU networks of many widths, trained by one compiled program: narrow ones are padded with zeros."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import losses, mlp, training

BATCH = 32


def num_parameters(num_inputs: int, depth: int, units: int) -> int:
    """Return the number of parameters of a network with `depth` hidden layers of `units` units and one output."""
    return (depth - 1) * units**2 + (depth + 1 + num_inputs) * units + 1


def width(num_inputs: int, depth: int, most: int) -> int:
    """Return the largest width, at least 1, of a network with at most `most` parameters."""
    return next(w for w in itertools.count(1) if num_parameters(num_inputs, depth, w + 1) > most)


def start(generator: np.random.Generator, sizes: tuple[int, ...], padded: tuple[int, ...]) -> mlp.Params:
    """Return a He initialization of a network of layer sizes `sizes`, padded with zeros to layer sizes `padded`.

    Padding stays zero: a ReLU unit of zero weights has a zero gradient, and so have the weights of a zero input.
    """

    def he(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Any:
        return (math.sqrt(2 / shape[0]) * generator.standard_normal(shape)).astype(dtype)

    def biases(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> Any:
        return (0.5 * generator.standard_normal(shape)).astype(dtype)

    params = mlp.init(jax.random.key(0), sizes, weight_init=he, bias_init=biases)
    extra = [(0, new - old) for new, old in zip(padded, sizes, strict=True)]
    pad: Any = np.pad  # lanes are numpy arrays until they are stacked
    return tuple(
        mlp.Layer(pad(layer.weight, extra[k : k + 2]), pad(layer.bias, extra[k + 1])) for k, layer in enumerate(params)
    )


def stacked_starts(seed: int, shapes: list[tuple[int, ...]], seeds: list[int], padded: tuple[int, ...]) -> mlp.Params:
    """Return initial parameters with leading axes (shapes, seeds)."""
    lanes = [start(np.random.default_rng((seed, s, *shape)), shape, padded) for shape in shapes for s in seeds]
    return jax.tree.map(lambda *a: np.stack(a).reshape(len(shapes), len(seeds), *a[0].shape), *lanes)


def sample_rows(seed: int, population: int, seeds: list[int], sizes: list[int], examples: int) -> np.ndarray:
    """Return row numbers (sizes, seeds, examples) drawn with replacement; a smaller sample is repeated to fill up."""
    drawn = np.stack([np.random.default_rng((seed, s)).integers(population, size=examples) for s in seeds])
    return np.stack([np.tile(drawn[:, :size], (1, examples // size)) for size in sizes])


def loss(params: mlp.Params, x: jax.Array, y: jax.Array, weights: jax.Array, key: jax.Array) -> jax.Array:
    """Return half the weighted mean of the squared error."""
    return losses.mean(losses.squared_error(mlp.forward(params, x, activation=jax.nn.relu), y), weights)


class Ends(NamedTuple):
    """Mean squared error on the population, the shares of examples off by more than ½, and divergence."""

    error: jax.Array
    wrong_on_sample: jax.Array
    wrong: jax.Array
    diverged: jax.Array


# Level 1 compiles in two thirds of the time, and the code is as fast.
@functools.partial(jax.jit, static_argnames="updates", compiler_options={"xla_backend_optimization_level": 1})
def train(
    keys: jax.Array, starts: mlp.Params, rates: jax.Array, samples: tuple, population: tuple, updates: int
) -> Ends:
    """Train lanes of (networks, seeds) by Adam with cosine decay, each on its own sample; keys are by seed."""

    def off(params: mlp.Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.abs(mlp.forward(params, x, activation=jax.nn.relu) - y)

    def lane(key: jax.Array, params: mlp.Params, rate: jax.Array, sample: tuple) -> Ends:
        optimizer = optax.adam(optax.cosine_decay_schedule(rate, updates))
        epochs = updates * BATCH // len(sample[0])
        params, history = training.train(
            key, loss, params, sample, optimizer=optimizer, batch_size=BATCH, epochs=epochs
        )
        on_sample, everywhere = off(params, *sample), off(params, *population)
        # NaN counts as wrong.
        wrong_on_sample, wrong = (1 - jnp.mean(distance <= 0.5) for distance in (on_sample, everywhere))
        return Ends(jnp.mean(everywhere**2), wrong_on_sample, wrong, history.diverged_at > 0)

    return jax.vmap(jax.vmap(lane), (None, 0, 0, 0))(keys, starts, rates, samples)
