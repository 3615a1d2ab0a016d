"""One training run as one compiled scan over shuffled minibatches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import _checks, _compiled
from mlp_jax.training import _batches, _door, _loop
from mlp_jax.training import early_stopping as stopping
from mlp_jax.training._loop import State
from mlp_jax.training.early_stopping import EarlyStopping, Watch
from mlp_jax.training.shuffle import order
from mlp_jax.tree import PyTree


class Loss(Protocol):
    """The loss of a batch: (params, inputs, targets, weights, key) -> scalar."""

    def __call__(  # noqa: D102
        self, params: PyTree, inputs: jax.Array, targets: jax.Array, weights: jax.Array, key: jax.Array, /
    ) -> jax.Array: ...


class History(NamedTuple):
    """The course of a run.

    loss
        (epochs,) mean of the batch losses of the epoch, each before its update and weighted by the number of examples
        in the batch. Infinite from the epoch on in which the run diverged; NaN for epochs after an early stop.
    record
        The pytree that `record` returned, each leaf with a leading axis of epochs, or of ⌊updates / record_every⌋;
        None without `record`. After an early stop the last record is repeated.
    diverged_at
        Number of the first update, from 1, whose loss is not finite; if every loss is finite but parameters are not,
        that of the last update of the epoch. 0: the run did not diverge.
    criterion
        (epochs,) criterion of `early_stopping` after each epoch, NaN for those not run; None without it.
    epochs_run, best_epoch
        Number of epochs run, and the epoch, from 1, whose parameters are returned; 0 if the criterion was always NaN,
        so that the start is returned. Without early stopping, both are `epochs`.
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
    batch_size: int | Callable[[jax.Array], Any],
    epochs: int,
    replace: bool = False,
    record: Callable[[State], PyTree] | None = None,
    record_every: int | None = None,
    early_stopping: EarlyStopping | None = None,
) -> tuple[PyTree, History]:
    """Return the params and the History of a run by minibatches, shuffled in every epoch. Transformable.

    The whole run is one compiled program. Each epoch visits every example once, unless `replace`. The last batch is
    padded with examples of weight 0, so that its loss and gradient are means over the examples in it. A second call
    with the same `loss`, `optimizer` and `record` objects and the same shapes compiles nothing. A short run is the
    beginning of a long one.

    Under vmap the optimizer may be made from a traced number; then jit the whole, since each new optimizer object is
    traced again:

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
        `(params, inputs, targets, weights, key) -> scalar`, penalties included; weights (batch_size,) are 1 or 0, of
        the widest dtype among the parameters.
    data
        A pair (inputs (n, …), targets (n, …)), such as `datasets.load("digits").train`.
    optimizer
        Any optax transformation. Its `update` may take the loss of the batch as `value`, its gradient as `grad`,
        params -> loss as `value_fn`, as line searches do, and (params, step) -> gradient as `grad_fn`, if it names it,
        as `optax.contrib.sam` does.
    batch_size, epochs
        Integers; batch_size from 1 to n. Or a function of the number of the update, from 0, which is traced as optax's
        schedules are and rounded to an integer. Such a run is one program too: it visits batches in micro-batches of a
        fixed number of rows, so that the loss must be a weighted mean over examples plus penalties of params. It has no
        derivative.
    replace
        Whether the examples of an epoch are n independent draws, with replacement, in place of a permutation.
    record
        State -> pytree, called after each epoch, or after every `record_every` updates; the results are stacked in
        `History.record`. With a `jax.tree_util.Partial(function, *arrays)`, new arrays of the same shapes compile
        nothing.
    record_every
        Updates between two records, from 1 to the number of updates; an epoch when None.
    early_stopping
        When to stop before the last epoch, and what to return.

    Raises
    ------
    TypeError, ValueError
        Parameters that are not finite floating arrays; inputs and targets of different length; an integer or a size out
        of range; a loss or a criterion that is not a scalar, or a loss that is not a mean if sizes change;
        `record_every` without `record`; errors of the loss, for the lowest and highest class number too, and of an
        optimizer that needs other arguments.

    Examples
    --------
    >>> w, history = train(jax.random.key(0), loss, jnp.zeros(()), data, optimizer=optax.sgd(0.05),
    ...                    batch_size=3, epochs=100)
    >>> print(f"{w:.4f}", history.loss.shape, int(history.diverged_at))
    3.0000 (100,) 0

    Everything can change along the run, counted in updates. The batch size is 1, then 2 from the eighth update on:

    >>> rate, momentum = optax.linear_schedule(0.05, 0.01, 200), optax.linear_schedule(0.5, 0.9, 200)
    >>> w, history = train(jax.random.key(0), loss, jnp.zeros(()), data, epochs=100,
    ...                    optimizer=optax.inject_hyperparams(optax.sgd)(learning_rate=rate, momentum=momentum),
    ...                    batch_size=lambda update: jnp.where(update < 8, 1, 2), record=lambda state: state.step)
    >>> print(f"{w:.4f}", history.record[:4])
    3.0000 [ 4  8 10 12]
    """
    _checks.key(key)
    _checks.params(params)
    inputs, targets = _door.data_pair(data)
    if isinstance(optimizer, type) or not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer: got {_checks.describe(optimizer)}, expected an optax transformation.")
    if not callable(batch_size):
        batch_size = _checks.integer(batch_size, "batch_size", 1, len(inputs), "the number of examples")
    # The number of an update is an int32.
    num_batches = 1 if callable(batch_size) else -(-len(inputs) // batch_size)
    epochs = _checks.integer(epochs, "epochs", 1, (2**31 - 1) // num_batches)
    sizes, updates = _batches.sizes_of_run(batch_size, len(inputs), epochs=epochs)
    if record_every is not None:
        if record is None:
            raise ValueError(f"record_every: got {record_every} without a record, expected both or neither.")
        record_every = _checks.integer(record_every, "record_every", 1, updates, "the number of updates")
    params = jax.tree.map(jnp.asarray, params)
    if early_stopping is not None:
        stopping.check(early_stopping, params)
    if record is not None and not isinstance(record, jax.tree_util.Partial):
        record = jax.tree_util.Partial(record)
    rows = _batches.cheapest_rows(sizes, np.ones(len(sizes)))
    _door.batch_loss(loss, params, inputs, targets, key, rows)
    if callable(batch_size) and not _checks.is_traced((params, inputs, targets, key)):
        _door.require_mean(loss, jax.tree.map(lambda a: a[None], params), {}, inputs, targets, key[None])
    program = _Program(
        loss,
        optimizer,
        rows,
        updates,
        epochs,
        bool(replace),
        record_every,
        None if record is None else record.func,
        None if early_stopping is None else early_stopping.criterion,
        0 if early_stopping is None else early_stopping.patience,
    )
    record_data = ((), {}) if record is None else (record.args, record.keywords)
    stopping_data = ((), 0.0) if early_stopping is None else (early_stopping.data, early_stopping.min_improvement)
    changing = jnp.asarray(sizes, jnp.int32) if callable(batch_size) else None
    return _train(program, key, params, inputs, targets, changing, record_data, stopping_data)


# For batches of at least this many bytes, gathering the rows of each update is faster than gathering all rows once an
# epoch and slicing them: by 10 to 40 % of an update on a CPU, and the other way round below.
_LARGE_BATCH = 2**16


def _take(array: jax.Array, rows: jax.Array) -> jax.Array:
    return array.at[rows].get(mode="promise_in_bounds")


class _Progress(NamedTuple):
    """The carry of the scan over epochs."""

    state: State
    records: PyTree
    diverged_at: jax.Array
    watch: Watch | None


class _Program(NamedTuple):
    """The static arguments of a run; rows: those of a batch, or of a micro-batch if the sizes change."""

    loss: Loss
    optimizer: optax.GradientTransformation
    rows: int
    updates: int
    epochs: int
    replace: bool
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
    sizes: jax.Array | None,
    record_data: tuple[tuple, dict[str, Any]],
    stopping_data: tuple,
) -> tuple[PyTree, History]:
    loss, optimizer, rows, updates, epochs, replace, record_every, recorded, criterion, patience = program
    record = None if recorded is None else jax.tree_util.Partial(recorded, *record_data[0], **record_data[1])
    held_out, min_improvement = stopping_data
    early_stopping = None if criterion is None else EarlyStopping(criterion, held_out, patience, min_improvement)
    num_examples = len(inputs)
    num_batches = -(-num_examples // rows)
    padding = num_batches * rows - num_examples
    held = jnp.ones(num_examples, _loop.weight_dtype(params))
    weights = jnp.pad(held, (0, padding)).reshape(num_batches, rows)
    shares = np.diff(np.minimum(rows * np.arange(num_batches + 1), num_examples)) / num_examples
    gather_each = (inputs.nbytes + targets.nbytes) * rows >= _LARGE_BATCH * num_examples

    def advance(carry: tuple, number: jax.Array, batch_loss: Callable[[PyTree], jax.Array]) -> tuple[tuple, jax.Array]:
        state, records, diverged_at = carry
        state, value = _loop.update(optimizer, state, batch_loss)
        if record_every is not None:
            # A branch even under vmap, because every lane has the same `number`.
            due = number % record_every == 0
            records = jax.lax.cond(due, _write, lambda *operands: operands[1], record, records, state, number)
        return (state, records, _loop.first_not_finite(diverged_at, number, value)), value

    def update(carry: tuple, batch: tuple) -> tuple[tuple, jax.Array]:
        number, chosen, weights = batch
        inputs_, targets_ = (_take(a, chosen) for a in (inputs, targets)) if gather_each else chosen
        loss_key = _loop.loss_key(carry[0])
        return advance(carry, number, lambda p: loss(p, inputs_, targets_, weights, loss_key))

    def _write(record: Callable[[State], PyTree], records: PyTree, state: State, number: jax.Array) -> PyTree:
        row = number // (record_every or 1) - 1
        return jax.tree.map(lambda kept, new: kept.at[row].set(new), records, record(state))

    def equal_batches(carry: tuple, epoch: jax.Array, visited: jax.Array) -> tuple[tuple, jax.Array]:
        """Return the carry after an epoch, and its mean loss."""
        visited = jnp.pad(visited, (0, padding)).reshape(num_batches, rows)
        numbers = epoch * num_batches + jnp.arange(1, num_batches + 1)
        # Without the barrier, XLA would gather again for each use.
        batches = (
            visited if gather_each else jax.lax.optimization_barrier([_take(a, visited) for a in (inputs, targets)])
        )
        carry, values = jax.lax.scan(update, carry, (numbers, batches, weights))
        return carry, jnp.sum(jnp.asarray(shares, values.dtype) * values)

    def changing_batches(
        sizes: jax.Array, carry: tuple, epoch: jax.Array, visited: jax.Array
    ) -> tuple[tuple, jax.Array]:
        shuffled = [_take(a, jnp.pad(visited, (0, rows))) for a in (inputs, targets)]

        def one(progress: tuple) -> tuple:
            (state, *_), first, mean = progress
            size = jnp.minimum(sizes[state.step], num_examples - first)
            batch_loss = _batches.loss_of_batch(loss, rows, shuffled, first, size, _loop.loss_key(state))
            carry, value = advance(progress[0], state.step + 1, batch_loss)
            return carry, first + size, mean + size.astype(value.dtype) / num_examples * value

        value = jax.eval_shape(loss, params, *(a[:1] for a in shuffled), held[:1], key)
        start = (carry, jnp.zeros((), jnp.int32), jnp.zeros((), value.dtype))
        carry, _, mean = jax.lax.while_loop(lambda progress: progress[1] < num_examples, one, start)
        return carry, mean

    def run_epoch(progress: _Progress, epoch: jax.Array) -> tuple[_Progress, tuple[jax.Array, jax.Array | None]]:
        visited = order(key, epoch, num_examples, replace=replace)
        make = equal_batches if sizes is None else functools.partial(changing_batches, sizes)
        (state, records, diverged_at), mean = make(progress[:3], epoch, visited)
        diverged_at = _loop.first_not_finite(diverged_at, state.step, state.params)
        mean = jnp.where(diverged_at > 0, jnp.inf, mean)
        watch, criterion = progress.watch, None
        if early_stopping is not None and watch is not None:
            watch, criterion = stopping.look(early_stopping, watch, state.params)
        return _Progress(state, records, diverged_at, watch), (mean, criterion)

    def skip_epoch(progress: _Progress, epoch: jax.Array) -> tuple[_Progress, tuple[jax.Array, jax.Array | None]]:
        _, outputs = jax.eval_shape(run_epoch, progress, epoch)
        return progress, jax.tree.map(lambda a: jnp.full(a.shape, jnp.nan, a.dtype), outputs)

    def scanned(progress: _Progress, epoch: jax.Array) -> tuple[_Progress, tuple]:
        if progress.watch is None:
            progress, outputs = run_epoch(progress, epoch)
        else:
            going_on = progress.watch.waited < patience
            progress, outputs = jax.lax.cond(going_on, run_epoch, skip_epoch, progress, epoch)
        return progress, (*outputs, record(progress.state) if record is not None and record_every is None else None)

    state = _loop.begin(optimizer, params, key)
    records = None
    if record_every is not None and record is not None:
        num_records = updates // record_every
        records = jax.tree.map(lambda a: jnp.zeros((num_records, *a.shape), a.dtype), jax.eval_shape(record, state))
    watch = None if early_stopping is None else stopping.begin(early_stopping, params)
    progress = _Progress(state, records, jnp.zeros((), jnp.int32), watch)
    progress, (means, criteria, by_epoch) = jax.lax.scan(scanned, progress, jnp.arange(epochs))
    records = by_epoch if record_every is None else progress.records
    if progress.watch is None:
        everything = jnp.asarray(epochs, jnp.int32)
        return progress.state.params, History(means, records, progress.diverged_at, None, everything, everything)
    watch = progress.watch
    history = History(means, records, progress.diverged_at, criteria, watch.epochs_run, watch.best_epoch)
    return watch.params, history
