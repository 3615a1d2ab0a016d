"""When to stop a run before its last epoch, and which parameters to return. Transformable."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlp_jax import _checks
from mlp_jax.tree import PyTree


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["data", "min_improvement"],
    meta_fields=["criterion", "patience"],
)
@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stop when a criterion has not improved for `patience` epochs, and return the best parameters seen.

    After each epoch c = criterion(params, *data), an improvement if c < best − min_improvement (Prechelt 1998, "Early
    stopping — but when?").

    Parameters
    ----------
    criterion
        `(params, *data) -> scalar`, lower is better: a loss or an error rate on validation examples.
    data
        Its further arguments, such as `(inputs, targets)`. New data of the same shapes compile nothing.
    patience
        Epochs without an improvement after which to stop, 1 or more.
    min_improvement
        Threshold of an improvement, 0 or more; may be traced.

    Examples
    --------
    Here the criterion gets worse from the second epoch on:

    >>> import optax
    >>> from mlp_jax.training import train
    >>> data = (jnp.arange(4.0), 3.0 * jnp.arange(4.0))
    >>> def loss(w, x, y, weights, key):
    ...     return jnp.sum(weights * (w * x - y) ** 2) / jnp.sum(weights)
    >>> stopping = EarlyStopping(lambda w, best: (w - best) ** 2, (jnp.array(1.0),), patience=2)
    >>> w, history = train(jax.random.key(0), loss, jnp.zeros(()), data, optimizer=optax.sgd(0.05), batch_size=4,
    ...                    epochs=9, early_stopping=stopping)
    >>> int(history.best_epoch), int(history.epochs_run), round(float(w), 2)
    (1, 3, 1.05)
    """

    criterion: Callable[..., jax.Array]
    data: tuple
    patience: int
    min_improvement: float = 0.0


class Watch(NamedTuple):
    """The best criterion, its parameters and epoch; epochs since then, and in all."""

    best: jax.Array
    params: PyTree
    best_epoch: jax.Array
    waited: jax.Array
    epochs_run: jax.Array


def begin(early_stopping: EarlyStopping, params: PyTree) -> Watch:
    """Return the watch before the first epoch."""
    value, nothing = jax.eval_shape(early_stopping.criterion, params, *early_stopping.data), jnp.zeros((), jnp.int32)
    return Watch(jnp.asarray(jnp.inf, value.dtype), params, nothing, nothing, nothing)


def look(early_stopping: EarlyStopping, watch: Watch, params: PyTree) -> tuple[Watch, jax.Array]:
    """Return the watch after an epoch, and the criterion."""
    value = early_stopping.criterion(params, *early_stopping.data)
    better = value < watch.best - jnp.asarray(early_stopping.min_improvement, value.dtype)
    epochs_run = watch.epochs_run + 1
    kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), params, watch.params)
    best, best_epoch = jnp.where(better, value, watch.best), jnp.where(better, epochs_run, watch.best_epoch)
    return Watch(best, kept, best_epoch, jnp.where(better, 0, watch.waited + 1), epochs_run), value


def check(early_stopping: EarlyStopping, params: PyTree) -> None:
    """Raise unless patience and min_improvement are in range and the criterion is a scalar."""
    if not isinstance(early_stopping, EarlyStopping):
        raise TypeError(f"early_stopping: got {_checks.describe(early_stopping)}, expected an EarlyStopping.")
    _checks.integer(early_stopping.patience, "patience")
    _checks.real(early_stopping.min_improvement, "min_improvement", "a number of 0 or more", lambda x: x >= 0)
    _checks.scalar(jax.eval_shape(early_stopping.criterion, params, *early_stopping.data), "criterion")
