"""ReLU networks trained with dropout, penalties and early stopping in one program, and measures of co-adaptation."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import datasets, losses, mlp, penalties, training

ACTIVATION, MOMENTUM, BATCH_SIZE = jax.nn.relu, 0.9, 20


class Strengths(NamedTuple):
    """The learning rate, and the strength of each method that changes the loss; 0 turns it off."""

    rate: Any
    dropout: Any = 0.0
    l1: Any = 0.0
    l2: Any = 0.0


def strengths_of(method: str, values: tuple[float, ...], rate: float) -> Strengths:
    """Return the strengths for the values tried of a method; early stopping changes none."""
    tried = {"nothing": "rate", "early stopping": ""}.get(method, method.lower())
    fields = {"rate": rate, "dropout": 0.0, "l1": 0.0, "l2": 0.0, tried: values}
    return Strengths(*(jnp.broadcast_to(jnp.float32(fields[name]), len(values)) for name in Strengths._fields))


class Seeds(NamedTuple):
    """The draws of each seed (leading axis); early stopping watches `watched`, tuning uses `judged`."""

    key: jax.Array
    start: mlp.Params
    train: datasets.Examples
    watched: datasets.Examples
    judged: datasets.Examples


def entropy(params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean cross-entropy, without dropout and penalties."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, inputs, activation=ACTIVATION), targets))


def training_loss(
    strengths: Strengths, params: mlp.Params, inputs: Any, targets: Any, weights: Any, key: jax.Array
) -> jax.Array:
    """Return the cross-entropy of a batch under dropout, plus the penalties on the weights."""
    logits = mlp.forward(params, inputs, activation=ACTIVATION, dropout_rate=strengths.dropout, key=key)
    penalty = penalties.l1(params, strengths.l1, biases=False) + penalties.l2(params, strengths.l2, biases=False)
    return losses.mean(losses.cross_entropy(logits, targets), weights) + penalty


# Level 1 compiles in half the time, and the code is as fast.
@functools.partial(
    jax.jit, static_argnames=("epochs", "patience"), compiler_options={"xla_backend_optimization_level": 1}
)
def fit(seeds: Seeds, strengths: Strengths, epochs: int, patience: int | None = None) -> tuple[mlp.Params, Any]:
    """Train with every strength (leading axis) from every seed, and early stopping if a patience is given.

    Return params and histories, each leaf (strengths, seeds, ...). The record has the losses on watched and judged
    examples.
    """

    def one(strengths: Strengths, seed: Seeds) -> tuple[mlp.Params, Any]:
        stopping = training.EarlyStopping(entropy, tuple(seed.watched), patience) if patience else None
        parts = {"watched": seed.watched, "judged": seed.judged}
        return training.train(
            seed.key, functools.partial(training_loss, strengths), seed.start, seed.train,
            optimizer=optax.sgd(strengths.rate, momentum=MOMENTUM), epochs=epochs,
            batch_size=min(BATCH_SIZE, len(seed.train.targets)), early_stopping=stopping,
            record=lambda state: {name: entropy(state.params, *part) for name, part in parts.items()},
        )  # fmt: skip

    number, count = len(strengths.rate), len(seeds.key)
    lanes = jax.tree.map(lambda a: jnp.concatenate([a] * number), seeds)
    ends = jax.vmap(one)(jax.tree.map(lambda a: jnp.repeat(a, count), strengths), lanes)
    return jax.tree.map(lambda a: a.reshape(number, count, *a.shape[1:]), ends)


def best_epoch(watched: np.ndarray, patience: int) -> int:
    """Return the epoch, from 1, whose parameters early stopping returns; 0 if the loss was always NaN."""
    best, found = np.inf, 0
    for epoch, value in enumerate(watched, 1):
        if value < best:
            best, found = value, epoch
        if epoch - found >= patience:
            break
    return found


def stopped_losses(watched: np.ndarray, judged: np.ndarray, patience: int) -> np.ndarray:
    """Return the judged loss of each run (rows) at the epoch that early stopping by the watched loss selects."""
    epochs = [best_epoch(row, patience) for row in watched]
    return np.array([row[epoch - 1] if epoch else np.inf for row, epoch in zip(judged, epochs, strict=True)])


def correlation(activations: jax.Array) -> jax.Array:
    """Return the mean |correlation| over pairs of units (columns); constant units are left out."""
    centred = activations - jnp.mean(activations, axis=0)
    length = jnp.linalg.norm(centred, axis=0)
    # A constant column is nonzero by rounding alone.
    alive = length > 1e-5 * jnp.linalg.norm(activations, axis=0)
    unit = jnp.where(alive, centred / jnp.where(alive, length, 1), 0)
    live = jnp.sum(alive.astype(activations.dtype))
    return (jnp.sum(jnp.abs(unit.T @ unit)) - live) / (live * (live - 1))


def removal(activations: jax.Array, last: mlp.Layer, targets: jax.Array) -> jax.Array:
    """Return the increase of the cross-entropy when one hidden unit is set to 0, averaged over units."""
    logits = mlp.forward((last,), activations)

    def without(activation: jax.Array, outgoing: jax.Array) -> jax.Array:
        return losses.mean(losses.cross_entropy(logits - activation[:, None] * outgoing, targets))

    raised = jax.vmap(without, in_axes=(1, 0))(activations, last.weight)
    return jnp.mean(raised) - losses.mean(losses.cross_entropy(logits, targets))
