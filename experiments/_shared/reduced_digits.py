"""Digits reduced to their first principal components: a small tanh network on them, and one training run of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._shared.classifier import all_digits, classifier
from mlp_jax import critical, datasets, mlp, training

COMPONENTS, CLASSES = 10, 10


class Problem(NamedTuple):
    """The loss on the reduced digits, its fast Hessian, the data, a training run, all variances, the width."""

    fun: Callable[..., jax.Array]
    hessian: Callable[..., jax.Array]
    data: tuple[np.ndarray, np.ndarray]
    run: mlp.Params
    variances: np.ndarray
    hidden: int


def reduced(examples: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return the inputs, of variance 1, and targets of a number of examples; and all variances before."""
    inputs, targets = all_digits()
    left, sizes, _ = np.linalg.svd(inputs - inputs.mean(0), full_matrices=False)
    components = left[:, :COMPONENTS] * np.sqrt(len(left))
    return (components[:examples], targets[:examples]), sizes**2 / len(left)


def problem(hidden: int, examples: int, weight_decay: float, seed: int) -> Problem:
    """Return the problem of a number of hidden units and of examples; float64, so that x64 must be on."""
    data, variances = reduced(examples)
    model = classifier(weight_decay)
    init_key, train_key = jax.random.split(jax.random.key(seed))
    _, history = training.train(
        train_key,
        model.batch_loss,
        mlp.init(init_key, (COMPONENTS, hidden, CLASSES), dtype=jnp.float64),
        datasets.Examples(*map(jnp.asarray, data)),
        optimizer=optax.sgd(0.2),
        batch_size=50,
        epochs=30,
        record=lambda state: state.params,
    )
    return Problem(model.fun, model.hessian, data, history.record, variances, hidden)


def starts(digits: Problem, number: int, key: jax.Array) -> mlp.Params:
    """Return starts of searches: the first half along the run, with noise, the others random, of two scales."""
    run_key, init_key = jax.random.split(key)
    sizes = (COMPONENTS, digits.hidden, CLASSES)
    along = critical.along_run(run_key, digits.run, number // 2, 0.2)
    drawn = [mlp.init(k, sizes, dtype=jnp.float64) for k in jax.random.split(init_key, number)[number // 2 :]]
    scaled = [jax.tree.map(lambda leaf, s=1.0 + 1.5 * (i % 2): s * leaf, draw) for i, draw in enumerate(drawn)]
    return jax.tree.map(lambda run, *others: jnp.concatenate([run, jnp.stack(others)]), along, *scaled)
