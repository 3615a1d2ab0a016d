"""The compiled part of a sweep: runs of one batch size as lanes of one program. Transformable."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mlp_jax import _checks, _compiled, training
from mlp_jax.tree import PyTree


class Program(NamedTuple):
    """What is compiled in: functions and fixed sizes.

    optimizer
        (learning_rate, **settings) -> optax transformation.
    rows
        Rows of a micro-batch.
    batch_size
        When given, it is compiled in too, and equals `rows`: a batch is one micro-batch.
    record
        (*data, state, **keywords) -> pytree, or None.
    """

    loss: Callable[..., jax.Array]
    optimizer: Callable[..., optax.GradientTransformation]
    records: int
    rows: int
    batch_size: int | None = None
    record: Callable[..., PyTree] | None = None


def make_optimizer(
    optimizer: Callable[..., optax.GradientTransformation], settings: dict[str, jax.Array]
) -> optax.GradientTransformation:
    """Return the optimizer: the learning rate is its first argument, whatever its name; the others go by name."""
    others = dict(settings)
    made = optimizer(others.pop("learning_rate"), **others)
    if not isinstance(made, optax.GradientTransformation):
        raise TypeError(f"optimizer: got one that returns {_checks.describe(made)}, expected an optax transformation.")
    return made


class Lanes(NamedTuple):
    """What every lane ends with, each with leading axes (settings, seeds)."""

    params: PyTree
    loss: jax.Array
    record: PyTree
    diverged_at: jax.Array


class _Kept(NamedTuple):
    """What a lane keeps on its way: rows of the result, and sums since the last of them."""

    losses: jax.Array
    record: PyTree
    total: jax.Array
    examples: jax.Array
    diverged_at: jax.Array


# Drawing numbers is slow to compile at full optimisation, more so under vmap, and is a small part of the work: it is a
# program of its own, at the lowest level. (Inside the program of the updates it costs most of the time to the first
# result.)
@_compiled.by_function(3, compiler_options={"xla_backend_optimization_level": 0})
def prepare(
    init: Callable[[jax.Array], PyTree], epochs: int, num_examples: int, key: jax.Array, seeds: jax.Array
) -> tuple[jax.Array, PyTree, jax.Array]:
    """Return for the numbers of the seeds (seeds,) keys of the runs, start values, and orders (epochs, seeds, n)."""
    init_keys, run_keys = jnp.swapaxes(
        jax.vmap(lambda seed: jax.random.split(jax.random.fold_in(key, seed)))(seeds), 0, 1
    )
    orders = jax.lax.map(
        lambda epoch: jax.vmap(lambda key: training.order(key, epoch, num_examples))(run_keys), jnp.arange(epochs)
    )
    return run_keys, jax.vmap(init)(init_keys), orders


@_compiled.by_function(2, compiler_options={"xla_backend_optimization_level": 0})
def loss_of_halves(
    loss: Callable[..., jax.Array], rows: int, starts: PyTree, settings: Any, inputs: Any, targets: Any, keys: Any
) -> tuple[jax.Array, jax.Array]:
    """Return the loss of the first rows, and the mean of the losses of two halves of them."""
    params, settings = jax.tree.map(lambda a: a[0], (starts, settings))
    half = (jnp.arange(rows) < rows // 2).astype(training.widest_dtype(params))

    def of(weights: jax.Array) -> jax.Array:
        return loss(params, inputs[:rows], targets[:rows], weights, keys[0], **settings)

    return of(jnp.ones_like(half)), (of(half) + of(1 - half)) / 2


class _Batch(NamedTuple):
    """Rows first to first + held − 1 of the data in the order of an epoch, and the key of their update."""

    shuffled: list[jax.Array]
    first: jax.Array
    held: jax.Array
    key: jax.Array


def _micro_batch(
    program: Program, batch: _Batch, number: jax.Array, loss: Callable[..., Any], params: PyTree
) -> tuple[Any, jax.Array]:
    """Return what `loss` returns for a micro-batch, and the share that it has in its batch."""
    dtype = training.widest_dtype(params)
    here = jnp.minimum(program.rows, batch.held - number * program.rows)
    start = batch.first + number * program.rows
    rows = [jax.lax.dynamic_slice_in_dim(a, start, program.rows) for a in batch.shuffled]
    weights = (jnp.arange(program.rows, dtype=jnp.int32) < here).astype(dtype)
    key = batch.key if program.batch_size is not None else jax.random.fold_in(batch.key, number)
    return loss(params, *rows, weights, key), here.astype(dtype) / batch.held.astype(dtype)


def _over_batch(program: Program, batch: _Batch, loss: Callable[..., Any], params: PyTree) -> Any:
    """Return the mean over a batch of what `loss` returns, from its micro-batches."""
    zero = jnp.zeros((), jnp.int32)
    if program.batch_size is not None:
        return _micro_batch(program, batch, zero, loss, params)[0]

    def add(number: jax.Array, sums: Any) -> Any:
        values, share = _micro_batch(program, batch, number, loss, params)
        return jax.tree.map(lambda a, b: a + share.astype(a.dtype) * b, sums, values)

    shapes = jax.eval_shape(lambda: _micro_batch(program, batch, zero, loss, params)[0])
    start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    return jax.lax.fori_loop(0, -(-batch.held // program.rows), add, start)


def _value_fn(program: Program, batch: _Batch, loss: Callable[..., Any]) -> Callable[[PyTree], jax.Array]:
    """Return the loss of a batch as a function of params; its rule is needed since a loop has no reverse mode."""

    @jax.custom_vjp
    def value(params: PyTree) -> jax.Array:
        return _over_batch(program, batch, loss, params)

    def forward(params: PyTree) -> tuple[jax.Array, PyTree]:
        return _over_batch(program, batch, jax.value_and_grad(loss), params)

    def backward(gradient: PyTree, cotangent: jax.Array) -> tuple[PyTree]:
        return (jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, gradient),)

    value.defvjp(forward, backward)
    return value


@_compiled.by_function()
def run_lanes(
    program: Program,
    keys: jax.Array,
    params: PyTree,
    orders: jax.Array,
    settings: dict[str, dict[str, jax.Array]],
    batch_size: jax.Array,
    updates: jax.Array,
    inputs: jax.Array,
    targets: jax.Array,
    record_data: tuple[tuple, dict[str, Any]],
) -> Lanes:
    """Return what each setting ends with from each seed.

    Parameters
    ----------
    keys, params, orders
        (seeds,) keys; start values with a leading axis of seeds; (epochs, seeds, n) the order of each epoch.
    settings
        {"optimizer": {name: (settings,)}, "loss": {name: (settings,)}}.
    batch_size, updates
        Scalars, the same in every lane.
    record_data
        The data and keywords of `program.record`.
    """
    n = inputs.shape[0]
    record = None if program.record is None else functools.partial(program.record, *record_data[0], **record_data[1])
    # Rows past the end, so that no micro-batch has to start earlier than it should.
    padding = program.rows
    size = batch_size if program.batch_size is None else program.batch_size
    num_batches = -(-n // size)
    dtype = training.widest_dtype(params)

    def lane(settings: dict[str, dict[str, jax.Array]], key: jax.Array, params: PyTree, orders: Any) -> Lanes:
        optimizer = optax.with_extra_args_support(make_optimizer(program.optimizer, settings["optimizer"]))
        loss = functools.partial(program.loss, **settings["loss"])

        def update(epoch: jax.Array, shuffled: list[jax.Array], number: jax.Array, carry: tuple) -> tuple:
            state, kept = carry
            first = number * size
            held = jnp.minimum(size, n - first)
            batch = _Batch(shuffled, first, held, jax.random.fold_in(state.key, state.step))
            value, gradient = _over_batch(program, batch, jax.value_and_grad(loss), state.params)
            state = training.apply(optimizer, state, value, gradient, _value_fn(program, batch, loss))
            done = epoch * num_batches + number + 1
            bad = (kept.diverged_at == 0) & ~jnp.isfinite(value)
            kept = kept._replace(
                total=kept.total + held.astype(value.dtype) * value,
                examples=kept.examples + held,
                diverged_at=jnp.where(bad, done, kept.diverged_at),
            )
            # The same in every lane, so that this stays a branch. Record r is due after ⌈r · updates / records⌉.
            due = done * program.records // updates > (done - 1) * program.records // updates
            return state, jax.lax.cond(due, write, lambda state, kept, row: kept, state, kept, done)

        def write(state: training.State, kept: _Kept, done: jax.Array) -> _Kept:
            row = done * program.records // updates - 1
            mean = kept.total / kept.examples.astype(kept.total.dtype)
            mean = jnp.where(kept.diverged_at > 0, jnp.inf, mean)
            new = None if record is None else record(state)
            return kept._replace(
                losses=kept.losses.at[row].set(mean),
                record=jax.tree.map(lambda rows, one: rows.at[row].set(one), kept.record, new),
                total=jnp.zeros_like(kept.total),
                examples=jnp.zeros_like(kept.examples),
            )

        def epoch(number: jax.Array, carry: tuple) -> tuple:
            visited = jnp.pad(orders[number], (0, padding))
            shuffled = [a[visited] for a in (inputs, targets)]
            todo = jnp.minimum(num_batches, updates - number * num_batches)
            return jax.lax.fori_loop(0, todo, functools.partial(update, number, shuffled), carry)

        state = training.State(params, optimizer.init(params), jnp.zeros((), jnp.int32), jax.random.split(key)[1])
        shape = jax.eval_shape(loss, params, inputs[:1], targets[:1], jnp.ones(1, dtype), key)
        rows = None if record is None else jax.eval_shape(record, state)
        kept = _Kept(
            jnp.zeros(program.records, shape.dtype),
            jax.tree.map(lambda a: jnp.zeros((program.records, *a.shape), a.dtype), rows),
            jnp.zeros((), shape.dtype),
            jnp.zeros((), jnp.int32),
            jnp.zeros((), jnp.int32),
        )
        state, kept = jax.lax.fori_loop(0, -(-updates // num_batches), epoch, (state, kept))
        lost = ~jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.params)]))
        diverged_at = jnp.where((kept.diverged_at == 0) & lost, updates, kept.diverged_at)
        losses = kept.losses.at[-1].set(jnp.where(diverged_at > 0, jnp.inf, kept.losses[-1]))
        return Lanes(state.params, losses, kept.record, diverged_at.astype(jnp.int32))

    over_seeds = jax.vmap(lane, in_axes=(None, 0, 0, 1))
    return jax.vmap(over_seeds, in_axes=(0, None, None, None))(settings, keys, params, orders)
