"""The update and the test of divergence that a run and the lanes of a sweep share. Transformable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mlp_jax.tree import PyTree


class State(NamedTuple):
    """The state of a run between two updates, which `record` is given."""

    params: PyTree
    optimizer_state: PyTree
    step: jax.Array
    key: jax.Array


def begin(optimizer: optax.GradientTransformation, params: PyTree, key: jax.Array) -> State:
    """Return the state before the first update of a run with this key."""
    return State(params, optimizer.init(params), jnp.zeros((), jnp.int32), jax.random.split(key)[1])


def loss_key(state: State) -> jax.Array:
    """Return the key for the loss of the next update."""
    return jax.random.fold_in(state.key, state.step)


def update(
    optimizer: optax.GradientTransformation, state: State, batch_loss: Callable[[PyTree], jax.Array]
) -> tuple[State, jax.Array]:
    """Return the state after one update, and the loss of the batch before it."""
    value, gradient = jax.value_and_grad(batch_loss)(state.params)
    return apply(optimizer, state, value, gradient, batch_loss), value


def apply(
    optimizer: optax.GradientTransformation,
    state: State,
    value: jax.Array,
    gradient: PyTree,
    value_fn: Callable[[PyTree], jax.Array],
) -> State:
    """Return the state after one update, from the value and gradient of the loss of a batch. Transformable.

    value, gradient: at `state.params`; value_fn: params -> loss of the batch; optimizer: see `train`. Errors are those
    of the optimizer, if it needs other arguments or the state belongs to another optimizer.

    Examples
    --------
    >>> optimizer = optax.sgd(0.5)
    >>> state = State(jnp.array(1.0), optimizer.init(jnp.array(1.0)), jnp.array(0), jax.random.key(0))
    >>> float(apply(optimizer, state, jnp.array(1.0), jnp.array(2.0), lambda w: w**2).params)
    0.0
    """
    change = optax.with_extra_args_support(optimizer).update
    taken = inspect.signature(change).parameters
    extra: dict[str, Any] = {"value": value, "grad": gradient, "value_fn": value_fn}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        extra["grad_fn"] = lambda params, step: jax.grad(value_fn)(params)
        extra = {name: extra[name] for name in taken if name in extra}
    updates, optimizer_state = change(gradient, state.optimizer_state, state.params, **extra)
    return State(optax.apply_updates(state.params, updates), optimizer_state, state.step + 1, state.key)


def first_not_finite(diverged_at: jax.Array, number: jax.Array, values: PyTree) -> jax.Array:
    """Return `diverged_at`, or `number` if that is 0 (no divergence yet) and `values` are not all finite."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(values)]))
    return jnp.where((diverged_at == 0) & ~finite, jnp.asarray(number, jnp.int32), diverged_at)


def weight_dtype(params: PyTree) -> jnp.dtype:
    """Return the widest dtype among the parameters, that of the weights of a batch."""
    return max((jnp.result_type(leaf) for leaf in jax.tree.leaves(params)), key=lambda dtype: jnp.finfo(dtype).bits)
