"""The compiled part of a sweep: runs of one batch size as lanes of one program. Transformable."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mlp_jax import _compiled
from mlp_jax.training import _loop, order
from mlp_jax.tree import PyTree


class Program(NamedTuple):
    """The static arguments: functions and fixed sizes.

    optimizer: (learning_rate, **settings) -> optax transformation; rows: of a micro-batch; batch_size: None if it is
    traced, else equal to `rows`; record: (*data, state, **keywords) -> pytree, or None.
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
    """Return optimizer(learning_rate, **others)."""
    others = dict(settings)
    return optimizer(others.pop("learning_rate"), **others)


class Lanes(NamedTuple):
    """The results of all lanes, with leading axes (settings, seeds)."""

    params: PyTree
    loss: jax.Array
    record: PyTree
    diverged_at: jax.Array


class _Kept(NamedTuple):
    """The part of the carry that becomes results: rows so far, and sums since the last record."""

    losses: jax.Array
    record: PyTree
    total: jax.Array
    examples: jax.Array
    diverged_at: jax.Array


# Random numbers are slow to compile at full optimisation, more so under vmap, and a small part of the work. So they are
# a program of their own, at the lowest level; in the program of the updates they would take most of the time to the
# first result.
@_compiled.by_function(3, compiler_options={"xla_backend_optimization_level": 0})
def prepare(
    init: Callable[[jax.Array], PyTree], epochs: int, num_examples: int, key: jax.Array, seeds: jax.Array
) -> tuple[jax.Array, PyTree, jax.Array]:
    """Return keys of the runs (seeds,), initial parameters, and orders (epochs, seeds, n)."""
    pairs = jax.vmap(lambda seed: jax.random.split(jax.random.fold_in(key, seed)))(seeds)
    init_keys, run_keys = jnp.swapaxes(pairs, 0, 1)
    orders = jax.lax.map(
        lambda epoch: jax.vmap(lambda key: order(key, epoch, num_examples))(run_keys), jnp.arange(epochs)
    )
    return run_keys, jax.vmap(init)(init_keys), orders


@_compiled.by_function(2, compiler_options={"xla_backend_optimization_level": 0})
def loss_of_halves(
    loss: Callable[..., jax.Array], rows: int, starts: PyTree, settings: Any, inputs: Any, targets: Any, keys: Any
) -> tuple[jax.Array, jax.Array]:
    """Return the loss of the first rows, and the mean of the losses of their two halves."""
    params, settings = jax.tree.map(lambda a: a[0], (starts, settings))
    half = (jnp.arange(rows) < rows // 2).astype(_loop.weight_dtype(params))

    def of(weights: jax.Array) -> jax.Array:
        return loss(params, inputs[:rows], targets[:rows], weights, keys[0], **settings)

    return of(jnp.ones_like(half)), (of(half) + of(1 - half)) / 2


def _batch_loss(
    program: Program, loss: Callable[..., Any], shuffled: list[jax.Array], first: Any, held: jax.Array, key: jax.Array
) -> Callable[[PyTree], jax.Array]:
    """Return params -> loss of the rows from `first` to `first + held − 1`, the mean over their micro-batches.

    It has its own derivative rule, since a loop has no reverse mode.
    """

    def micro_batch(number: jax.Array, function: Callable[..., Any], params: PyTree) -> tuple[Any, jax.Array]:
        """Return the value of a function at a micro-batch, and the share of the batch that it holds."""
        dtype = _loop.weight_dtype(params)
        here = jnp.minimum(program.rows, held - number * program.rows)
        rows = [jax.lax.dynamic_slice_in_dim(a, first + number * program.rows, program.rows) for a in shuffled]
        weights = (jnp.arange(program.rows, dtype=jnp.int32) < here).astype(dtype)
        its_key = key if program.batch_size is not None else jax.random.fold_in(key, number)
        return function(params, *rows, weights, its_key), here.astype(dtype) / held.astype(dtype)

    def over_batch(function: Callable[..., Any], params: PyTree) -> Any:
        zero = jnp.zeros((), jnp.int32)
        if program.batch_size is not None:
            return micro_batch(zero, function, params)[0]

        def add(number: jax.Array, sums: Any) -> Any:
            values, share = micro_batch(number, function, params)
            return jax.tree.map(lambda a, b: a + share.astype(a.dtype) * b, sums, values)

        shapes = jax.eval_shape(lambda: micro_batch(zero, function, params)[0])
        start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        return jax.lax.fori_loop(0, -(-held // program.rows), add, start)

    @jax.custom_vjp
    def value(params: PyTree) -> jax.Array:
        return over_batch(loss, params)

    value.defvjp(
        lambda params: over_batch(jax.value_and_grad(loss), params),
        lambda gradient, cotangent: (jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, gradient),),
    )
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
    """Return the results of each setting from each seed.

    keys, params, orders: from `prepare`; settings: from `Grid.vectors`; batch_size, updates: the same in every lane;
    record_data: the data and keywords of `program.record`.
    """
    n = inputs.shape[0]
    record = None if program.record is None else functools.partial(program.record, *record_data[0], **record_data[1])
    padding = program.rows  # else dynamic_slice would move the start of the last micro-batch
    size = batch_size if program.batch_size is None else program.batch_size
    num_batches = -(-n // size)
    dtype = _loop.weight_dtype(params)

    def lane(settings: dict[str, dict[str, jax.Array]], key: jax.Array, params: PyTree, orders: Any) -> Lanes:
        optimizer = make_optimizer(program.optimizer, settings["optimizer"])
        loss = functools.partial(program.loss, **settings["loss"])

        def update(epoch: jax.Array, shuffled: list[jax.Array], number: jax.Array, carry: tuple) -> tuple:
            state, kept = carry
            first = number * size
            held = jnp.minimum(size, n - first)
            batch_loss = _batch_loss(program, loss, shuffled, first, held, _loop.loss_key(state))
            state, value = _loop.update(optimizer, state, batch_loss)
            done = epoch * num_batches + number + 1
            kept = kept._replace(
                total=kept.total + held.astype(value.dtype) * value,
                examples=kept.examples + held,
                diverged_at=_loop.first_not_finite(kept.diverged_at, done, value),
            )
            # Record r is due after ⌈r · updates / records⌉ updates. Equal in every lane, so that this stays a branch.
            due = done * program.records // updates > (done - 1) * program.records // updates
            return state, jax.lax.cond(due, write, lambda state, kept, row: kept, state, kept, done)

        def write(state: _loop.State, kept: _Kept, done: jax.Array) -> _Kept:
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

        state = _loop.begin(optimizer, params, key)
        value = jax.eval_shape(loss, params, inputs[:1], targets[:1], jnp.ones(1, dtype), key)
        rows = None if record is None else jax.eval_shape(record, state)
        losses, rows = jax.tree.map(lambda a: jnp.zeros((program.records, *a.shape), a.dtype), (value, rows))
        nothing = jnp.zeros((), jnp.int32)
        kept = _Kept(losses, rows, jnp.zeros((), value.dtype), nothing, nothing)
        state, kept = jax.lax.fori_loop(0, -(-updates // num_batches), epoch, (state, kept))
        diverged_at = _loop.first_not_finite(kept.diverged_at, updates, state.params)
        losses = kept.losses.at[-1].set(jnp.where(diverged_at > 0, jnp.inf, kept.losses[-1]))
        return Lanes(state.params, losses, kept.record, diverged_at)

    over_seeds = jax.vmap(lane, in_axes=(None, 0, 0, 1))
    return jax.vmap(over_seeds, in_axes=(0, None, None, None))(settings, keys, params, orders)
