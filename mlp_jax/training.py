"""One training run as one compiled scan over shuffled minibatches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import tree
from mlp_jax.tree import PyTree

Loss = Callable[[PyTree, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


class State(NamedTuple):
    """What a run carries from one update to the next; a `record` function sees it after each epoch."""

    params: PyTree
    optimizer_state: PyTree
    step: jax.Array
    key: jax.Array


class History(NamedTuple):
    """What a run keeps, one entry an epoch.

    loss
        (epochs,) mean over the examples of the epoch: the loss of each update's batch before that update, weighted
        by the number of examples that the batch holds.
    record
        The pytree that `record` returned, each leaf with a leading axis of epochs; None without `record`.
    """

    loss: jax.Array
    record: PyTree


def train(
    key: jax.Array,
    loss: Loss,
    params: PyTree,
    data: Any,
    *,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    epochs: int,
    record: Callable[[State], PyTree] | None = None,
) -> tuple[PyTree, History]:
    """Train by minibatches: shuffle, cut, update per batch, repeat per epoch. Transformable.

    The whole run is one compiled program. Every example is seen once an epoch; the last batch is padded with
    examples of weight 0, so that its loss and gradient are the mean over what it really holds. A second call
    with the same `loss`, `optimizer` and `record` objects and the same shapes compiles nothing.

    Parameters
    ----------
    key
        JAX random key for the shuffles and, folded with the step, for the loss (dropout).
    loss
        `(params, inputs, targets, weights, key) -> scalar`; weights (batch_size,) are 1 or 0, of the widest dtype
        among the parameters.
    params
        Any pytree of floating arrays.
    data
        A pair (inputs (n, …), targets (n, …)), such as `datasets.load("digits").train`.
    optimizer
        Any optax transformation; one that asks for the value of the loss or for the loss itself (a line search,
        Polyak's step) is given that of the batch.
    batch_size, epochs
        Whole numbers; batch_size from 1 to n.
    record
        Called on the State after each epoch; what it returns is stacked in `History.record`.

    Returns
    -------
    (params, History)

    Raises
    ------
    TypeError, ValueError
        Wrong key type; parameters that are not finite floating arrays; inputs and targets of different length;
        batch_size or epochs out of range; a loss that is not a scalar.

    Examples
    --------
    >>> data = (jnp.arange(4.0), 3.0 * jnp.arange(4.0))
    >>> def loss(w, x, y, weights, key):
    ...     return jnp.sum(weights * (w * x - y) ** 2) / jnp.sum(weights)
    >>> w, history = train(jax.random.key(0), loss, jnp.zeros(()), data, optimizer=optax.sgd(0.05),
    ...                    batch_size=3, epochs=100)
    >>> print(f"{w:.4f}", history.loss.shape)
    3.0000 (100,)
    """
    tree.require_key(key)
    tree.require_floating(params)
    inputs, targets = jnp.asarray(data[0]), jnp.asarray(data[1])
    if inputs.ndim < 1 or targets.ndim < 1 or len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(
            f"data: got inputs {inputs.shape} and targets {targets.shape}, expected the same length, not 0."
        )
    if int(batch_size) != batch_size or not 1 <= batch_size <= len(inputs):
        raise ValueError(
            f"batch_size: got {batch_size}, expected a whole number from 1 to {len(inputs)}, the number of examples."
        )
    if int(epochs) != epochs or epochs < 1:
        raise ValueError(f"epochs: got {epochs}, expected a whole number of 1 or more.")
    batch_size, epochs = int(batch_size), int(epochs)
    params = jax.tree.map(jnp.asarray, params)
    weights = jax.ShapeDtypeStruct((batch_size,), _widest_dtype(params))
    batch = [jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), a.dtype) for a in (inputs, targets)]
    result = jax.eval_shape(loss, params, *batch, weights, key)
    if getattr(result, "shape", None) != () or not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(f"loss: got a result of {result}, expected one floating-point number.")
    return _train(key, params, inputs, targets, loss, optimizer, batch_size, epochs, record)


def _widest_dtype(params: PyTree) -> jnp.dtype:
    return max((leaf.dtype for leaf in jax.tree.leaves(params)), key=lambda dtype: jnp.finfo(dtype).bits)


@functools.partial(jax.jit, static_argnames=("loss", "optimizer", "batch_size", "epochs", "record"))
def _train(
    key: jax.Array,
    params: PyTree,
    inputs: jax.Array,
    targets: jax.Array,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    epochs: int,
    record: Callable[[State], PyTree] | None,
) -> tuple[PyTree, History]:
    num_examples = len(inputs)
    num_batches = -(-num_examples // batch_size)
    padding = num_batches * batch_size - num_examples
    held = jnp.ones(num_examples, _widest_dtype(params))
    weights = jnp.pad(held, (0, padding)).reshape(num_batches, batch_size)
    shares = np.diff(np.minimum(batch_size * np.arange(num_batches + 1), num_examples)) / num_examples
    optimizer = optax.with_extra_args_support(optimizer)

    def update(state: State, batch: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        loss_key = jax.random.fold_in(state.key, state.step)

        def batch_loss(params: PyTree) -> jax.Array:
            return loss(params, *batch, loss_key)

        value, gradient = jax.value_and_grad(batch_loss)(state.params)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer_state, state.params, value=value, grad=gradient, value_fn=batch_loss
        )
        return State(optax.apply_updates(state.params, updates), optimizer_state, state.step + 1, state.key), value

    def epoch(state: State, shuffle_key: jax.Array) -> tuple[State, tuple[jax.Array, PyTree]]:
        order = jnp.pad(jax.random.permutation(shuffle_key, num_examples), (0, padding))
        # Gathered once an epoch: one large gather is cheaper than one in every update.
        cut = [a[order].reshape(num_batches, batch_size, *a.shape[1:]) for a in (inputs, targets)]
        state, values = jax.lax.scan(update, state, (cut[0], cut[1], weights))
        return state, (jnp.sum(jnp.asarray(shares, values.dtype) * values), None if record is None else record(state))

    shuffle_key, loss_key = jax.random.split(key)
    state = State(params, optimizer.init(params), jnp.zeros((), jnp.int32), loss_key)
    state, (losses, records) = jax.lax.scan(epoch, state, jax.random.split(shuffle_key, epochs))
    return state.params, History(losses, records)
