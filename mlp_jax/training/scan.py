"""One training run as one compiled scan over shuffled minibatches."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import _checks, _compiled
from mlp_jax.training import checks
from mlp_jax.training import early_stopping as stopping
from mlp_jax.training.early_stopping import EarlyStopping, Watch
from mlp_jax.training.shuffle import order
from mlp_jax.tree import PyTree

Loss = Callable[[PyTree, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


class State(NamedTuple):
    """What a run carries from one update to the next; a `record` function sees it."""

    params: PyTree
    optimizer_state: PyTree
    step: jax.Array
    key: jax.Array


class History(NamedTuple):
    """What a run keeps.

    loss
        (epochs,) mean over the examples of the epoch: the loss of each update's batch before that update, weighted
        by the number of examples that the batch holds. Infinite for an epoch in which the run diverged and for those
        after it; NaN for epochs after an early stop, which were not run.
    record
        The pytree that `record` returned, each leaf with a leading axis of epochs, or of ⌊updates / record_every⌋;
        None without `record`. After an early stop, the last one again.
    diverged_at
        Number of the first update, from 1, whose batch had a loss that is not finite; where parameters were not finite
        at the end of an epoch though every loss was, the last update of that epoch. 0: the run did not diverge.
    criterion
        (epochs,) what `early_stopping` watched after each epoch, NaN for those not run; None without it.
    epochs_run, best_epoch
        How many epochs were run, and the one, from 1, whose parameters are returned: 0 if the criterion was never a
        number, and the start is returned. Without early stopping, both are all epochs.
    """

    loss: jax.Array
    record: PyTree
    diverged_at: jax.Array
    criterion: jax.Array | None
    epochs_run: jax.Array
    best_epoch: jax.Array


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
    record_every: int | None = None,
    early_stopping: EarlyStopping | None = None,
) -> tuple[PyTree, History]:
    """Train by minibatches: shuffle, cut, update per batch, repeat per epoch. Transformable.

    The whole run is one compiled program. Every example is seen once an epoch; the last batch is padded with
    examples of weight 0, so that its loss and gradient are the mean over what it really holds. A second call
    with the same `loss`, `optimizer` and `record` objects and the same shapes compiles nothing. An epoch of a run
    does not depend on how many follow it, so that a short run is the beginning of a long one.

    Under vmap the optimizer may be made from a traced number (then jit the whole: each new optimizer object is traced
    again):

    >>> data = (jnp.arange(4.0), 3.0 * jnp.arange(4.0))
    >>> def loss(w, x, y, weights, key):
    ...     return jnp.sum(weights * (w * x - y) ** 2) / jnp.sum(weights)
    >>> def final(rate):
    ...     return train(jax.random.key(0), loss, jnp.zeros(()), data, optimizer=optax.sgd(rate),
    ...                  batch_size=3, epochs=100)[0]
    >>> [round(float(w), 2) for w in jax.jit(jax.vmap(final))(jnp.array([0.0, 0.05]))]
    [0.0, 3.0]

    Parameters
    ----------
    key
        JAX random key for the shuffles (`order`) and, folded with the step, for the loss (dropout).
    loss
        `(params, inputs, targets, weights, key) -> scalar`; weights (batch_size,) are 1 or 0, of the widest dtype
        among the parameters. Penalties are added here.
    params
        Any pytree of floating arrays.
    data
        A pair (inputs (n, …), targets (n, …)), such as `datasets.load("digits").train`.
    optimizer
        Any optax transformation. One that asks for more than the gradient is given that of the batch: the loss as
        `value`, its gradient as `grad`, and params -> loss as `value_fn`, as for line searches and Polyak's step;
        (params, step) -> gradient as `grad_fn` where its `update` names it, as that of `optax.contrib.sam`. One that
        needs something else (the `obj_fn` of `optax.contrib.sophia`) is refused.
    batch_size, epochs
        Whole numbers; batch_size from 1 to n.
    record
        Called on the State after each epoch, or after every `record_every` updates; what it returns is stacked in
        `History.record`. A `jax.tree_util.Partial(function, *arrays)` passes data as arguments, so that new data of
        the same shapes compile nothing.
    record_every
        Updates between two records, from 1 to the number of updates; an epoch when None.
    early_stopping
        When to stop before the last epoch, and what to return.

    Returns
    -------
    (params, History)

    Raises
    ------
    TypeError, ValueError
        Wrong key type; an optimizer, a record or a criterion that is none; parameters that are not finite floating
        arrays; inputs and targets of different length; an integer out of range; a loss or a criterion that is not a
        scalar; an optimizer that needs something else; `record_every` without a `record`; what the loss raises of the
        lowest and the highest class number.

    Examples
    --------
    >>> w, history = train(jax.random.key(0), loss, jnp.zeros(()), data, optimizer=optax.sgd(0.05),
    ...                    batch_size=3, epochs=100)
    >>> print(f"{w:.4f}", history.loss.shape, int(history.diverged_at))
    3.0000 (100,) 0
    """
    _checks.key(key)
    _checks.params(params)
    inputs, targets = checks.require_data(data)
    _require_optimizer(optimizer)
    _checks.function(loss, "loss", "(params, inputs, targets, weights, key) -> scalar")
    batch_size = _checks.integer(batch_size, "batch_size", 1, len(inputs), "the number of examples")
    num_batches = -(-len(inputs) // batch_size)
    # The number of an update is an int32.
    epochs = _checks.integer(epochs, "epochs", 1, (2**31 - 1) // num_batches)
    if record_every is not None:
        if record is None:
            raise ValueError(f"record_every: got {record_every} without a record, expected both or neither.")
        record_every = _checks.integer(record_every, "record_every", 1, epochs * num_batches, "the number of updates")
    params = jax.tree.map(jnp.asarray, params)
    if early_stopping is not None:
        stopping.require_early_stopping(early_stopping, params)
    if record is not None:
        _checks.function(record, "record", "(state) -> pytree")
        record = record if isinstance(record, jax.tree_util.Partial) else jax.tree_util.Partial(record)
    checks.require_class_numbers(loss, params, inputs, targets, key, batch_size)
    program = _Program(
        loss,
        optimizer,
        batch_size,
        epochs,
        record_every,
        None if record is None else record.func,
        None if early_stopping is None else early_stopping.criterion,
        0 if early_stopping is None else early_stopping.patience,
    )
    record_data = ((), {}) if record is None else (record.args, record.keywords)
    stopping_data = ((), 0.0) if early_stopping is None else (early_stopping.data, early_stopping.min_improvement)
    return _train(program, key, params, inputs, targets, record_data, stopping_data)


def _require_optimizer(optimizer: Any) -> None:
    parts = [getattr(optimizer, name, None) for name in ("init", "update")]
    if isinstance(optimizer, type) or not all(callable(part) for part in parts):
        raise TypeError(
            f"optimizer: got {_checks.describe(optimizer)}, expected an optax transformation, such as optax.sgd(0.1)."
        )


def _begin(optimizer: optax.GradientTransformation, params: PyTree, key: jax.Array) -> State:
    return State(params, optimizer.init(params), jnp.zeros((), jnp.int32), jax.random.split(key)[1])


def apply(
    optimizer: optax.GradientTransformationExtraArgs,
    state: State,
    value: jax.Array,
    gradient: PyTree,
    value_fn: Callable[[PyTree], jax.Array],
) -> State:
    """Return the state after one update from the value and gradient of the batch's loss. Transformable.

    Raises
    ------
    TypeError, ValueError
        The optimizer is no optax transformation, or needs more than it is given; `state` is no State, the value not
        one floating-point number, or the gradient not like the parameters.

    Examples
    --------
    >>> optimizer = optax.with_extra_args_support(optax.sgd(0.5))
    >>> state = State(jnp.array(1.0), optimizer.init(jnp.array(1.0)), jnp.array(0), jax.random.key(0))
    >>> float(apply(optimizer, state, jnp.array(1.0), jnp.array(2.0), lambda w: w**2).params)
    0.0
    """
    _require_optimizer(optimizer)
    if not isinstance(state, State):
        raise TypeError(f"state: got {_checks.describe(state)}, expected a training.State.")
    _checks.function(value_fn, "value_fn", "(params) -> scalar")
    value = _checks.real(value, "value", "one floating-point number", lambda x: True)
    _checks.leaves(value, "value", floating=True)
    _checks.leaves(gradient, "gradient", floating=True)
    _checks.like(gradient, state.params, "gradient", "state.params")
    got: Any = jax.tree.structure(state.optimizer_state)
    expected: Any = jax.tree.structure(jax.eval_shape(optimizer.init, state.params))
    if got != expected:
        raise ValueError(f"state.optimizer_state: got the structure {got}, expected that of the optimizer, {expected}.")
    update = optax.with_extra_args_support(optimizer).update
    taken = inspect.signature(update).parameters
    extra: dict[str, Any] = {"value": value, "grad": gradient, "value_fn": value_fn}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        extra["grad_fn"] = lambda params, step: jax.grad(value_fn)(params)
        extra = {name: extra[name] for name in taken if name in extra}
    try:
        updates, optimizer_state = update(gradient, state.optimizer_state, state.params, **extra)
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(
            f"optimizer: got one whose update raised {type(error).__name__} ({error}), expected one that takes the"
            " gradient, its state, the parameters, and value, grad and value_fn of the batch."
        ) from error
    return State(optax.apply_updates(state.params, updates), optimizer_state, state.step + 1, state.key)


# Bytes of a batch from which on gathering the rows of each update is faster than all of them once an epoch and slices
# of that: measured on a CPU, 10 to 40 % of the time of an update either way.
_LARGE_BATCH = 2**16


def take(array: jax.Array, rows: jax.Array) -> jax.Array:
    """Return rows that are known to exist. Transformable.

    Examples
    --------
    >>> take(jnp.arange(5), jnp.array([3, 1])).tolist()
    [3, 1]
    """
    return array.at[rows].get(mode="promise_in_bounds")


class _Progress(NamedTuple):
    """What a run carries from one epoch to the next."""

    state: State
    records: PyTree
    diverged_at: jax.Array
    watch: Watch | None


class _Program(NamedTuple):
    """What is compiled for."""

    loss: Loss
    optimizer: optax.GradientTransformation
    batch_size: int
    epochs: int
    record_every: int | None
    recorded: Callable[..., PyTree] | None
    criterion: Callable[..., jax.Array] | None
    patience: int


@_compiled.by_function()
def _train(
    program: _Program,
    key: jax.Array,
    params: PyTree,
    inputs: jax.Array,
    targets: jax.Array,
    record_data: tuple[tuple, dict[str, Any]],
    stopping_data: tuple,
) -> tuple[PyTree, History]:
    loss, optimizer, batch_size, epochs, record_every, recorded, criterion, patience = program
    data, min_improvement = stopping_data
    record = None if recorded is None else jax.tree_util.Partial(recorded, *record_data[0], **record_data[1])
    early_stopping = None if criterion is None else EarlyStopping(criterion, data, patience, min_improvement)
    checks.require_loss(loss, params, inputs, targets, key, batch_size)  # while tracing: a second call costs nothing
    num_examples = len(inputs)
    num_batches = -(-num_examples // batch_size)
    padding = num_batches * batch_size - num_examples
    held = jnp.ones(num_examples, checks.widest_dtype(params))
    weights = jnp.pad(held, (0, padding)).reshape(num_batches, batch_size)
    shares = np.diff(np.minimum(batch_size * np.arange(num_batches + 1), num_examples)) / num_examples
    optimizer = optax.with_extra_args_support(optimizer)
    gather_each = (inputs.nbytes + targets.nbytes) * batch_size >= _LARGE_BATCH * num_examples

    def update(carry: tuple[State, PyTree], batch: tuple) -> tuple[tuple[State, PyTree], jax.Array]:
        state, records = carry
        number, rows, weights = batch
        inputs_, targets_ = (take(a, rows) for a in (inputs, targets)) if gather_each else rows
        loss_key = jax.random.fold_in(state.key, state.step)

        def batch_loss(params: PyTree) -> jax.Array:
            return loss(params, inputs_, targets_, weights, loss_key)

        value, gradient = jax.value_and_grad(batch_loss)(state.params)
        state = apply(optimizer, state, value, gradient, batch_loss)
        if record_every is not None:
            # `number` is the same in every lane of a vmap, so that this stays a branch.
            due = number % record_every == 0
            records = jax.lax.cond(due, _write, lambda *operands: operands[1], record, records, state, number)
        return (state, records), value

    def _write(record: Callable[[State], PyTree], records: PyTree, state: State, number: jax.Array) -> PyTree:
        row = number // (record_every or 1) - 1
        return jax.tree.map(lambda kept, new: kept.at[row].set(new), records, record(state))

    def run_epoch(progress: _Progress, epoch: jax.Array) -> tuple[_Progress, tuple[jax.Array, jax.Array | None]]:
        visited = jnp.pad(order(key, epoch, num_examples), (0, padding)).reshape(num_batches, batch_size)
        numbers = epoch * num_batches + jnp.arange(1, num_batches + 1)
        # Behind a barrier, or XLA would gather once more for each use.
        batches = (
            visited if gather_each else jax.lax.optimization_barrier([take(a, visited) for a in (inputs, targets)])
        )
        (state, records), values = jax.lax.scan(update, progress[:2], (numbers, batches, weights))
        diverged_at = jnp.where(
            progress.diverged_at > 0, progress.diverged_at, first_not_finite(numbers, values, state.params)
        )
        mean = jnp.sum(jnp.asarray(shares, values.dtype) * values)
        mean = jnp.where(diverged_at > 0, jnp.inf, mean)
        watch, criterion = progress.watch, None
        if early_stopping is not None and watch is not None:
            watch, criterion = stopping.look(early_stopping, watch, state.params)
        return _Progress(state, records, diverged_at, watch), (mean, criterion)

    def skip_epoch(progress: _Progress, epoch: jax.Array) -> tuple[_Progress, tuple[jax.Array, jax.Array | None]]:
        _, outputs = jax.eval_shape(run_epoch, progress, epoch)
        return progress, jax.tree.map(lambda a: jnp.full(a.shape, jnp.nan, a.dtype), outputs)

    def scanned(progress: _Progress, epoch: jax.Array) -> tuple[_Progress, tuple]:
        if early_stopping is None or progress.watch is None:
            progress, outputs = run_epoch(progress, epoch)
        else:
            going_on = progress.watch.waited < early_stopping.patience
            progress, outputs = jax.lax.cond(going_on, run_epoch, skip_epoch, progress, epoch)
        return progress, (*outputs, record(progress.state) if record is not None and record_every is None else None)

    state = _begin(optimizer, params, key)
    records = None
    kept = None if record is None else jax.eval_shape(record, state)
    if record_every is not None and record is not None:
        rows = epochs * num_batches // record_every
        records = jax.tree.map(lambda a: jnp.zeros((rows, *a.shape), a.dtype), kept)
    nothing = jnp.zeros((), jnp.int32)
    watch = None
    if early_stopping is not None:
        value = jax.eval_shape(early_stopping.criterion, params, *early_stopping.data)
        watch = Watch(jnp.asarray(jnp.inf, value.dtype), params, nothing, nothing, nothing)
    progress = _Progress(state, records, nothing, watch)
    progress, (means, criteria, by_epoch) = jax.lax.scan(scanned, progress, jnp.arange(epochs))
    everything = jnp.asarray(epochs, jnp.int32)
    records = by_epoch if record_every is None else progress.records
    if progress.watch is None:
        return progress.state.params, History(means, records, progress.diverged_at, None, everything, everything)
    watch = progress.watch
    history = History(means, records, progress.diverged_at, criteria, watch.epochs_run, watch.best_epoch)
    return watch.params, history


def first_not_finite(numbers: jax.Array, values: jax.Array, params: PyTree) -> jax.Array:
    """Return the number of the first value that is not finite; else, where params are not finite, the last; else 0.

    Examples
    --------
    >>> int(first_not_finite(jnp.array([5, 6, 7]), jnp.array([0.1, jnp.inf, jnp.nan]), jnp.zeros(2)))
    6
    """
    bad = ~jnp.isfinite(values)
    lost = ~jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))
    first = jnp.where(jnp.any(bad), numbers[jnp.argmax(bad)], jnp.where(lost, numbers[-1], 0))
    return first.astype(jnp.int32)
