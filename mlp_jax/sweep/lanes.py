"""The compiled part of a sweep: runs of one batch size as lanes of one program. Transformable."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mlp_jax import _compiled
from mlp_jax.training import _batches, _loop, order
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
@_compiled.by_function(4, compiler_options={"xla_backend_optimization_level": 0})
def prepare(
    init: Callable[[jax.Array], PyTree], epochs: int, num_examples: int, replace: bool, key: jax.Array, seeds: jax.Array
) -> tuple[jax.Array, PyTree, jax.Array]:
    """Return keys of the runs (seeds,), initial parameters, and orders (epochs, seeds, n)."""
    pairs = jax.vmap(lambda seed: jax.random.split(jax.random.fold_in(key, seed)))(seeds)
    init_keys, run_keys = jnp.swapaxes(pairs, 0, 1)
    draw = functools.partial(order, num_examples=num_examples, replace=replace)
    orders = jax.lax.map(lambda epoch: jax.vmap(lambda key: draw(key, epoch))(run_keys), jnp.arange(epochs))
    return run_keys, jax.vmap(init)(init_keys), orders


@_compiled.by_function()
def run_lanes(
    program: Program,
    keys: jax.Array,
    params: PyTree,
    orders: jax.Array,
    settings: dict[str, dict[str, jax.Array]],
    sizes: jax.Array,
    updates: jax.Array,
    inputs: jax.Array,
    targets: jax.Array,
    record_data: tuple[tuple, dict[str, Any]],
) -> Lanes:
    """Return the results of each setting from each seed.

    keys, params, orders: from `prepare`; settings: from `Grid.vectors`; sizes, updates: the batch size of each update,
    or one of all, and their number, the same in every lane; record_data: the data and keywords of `program.record`.
    """
    n = inputs.shape[0]
    record = None if program.record is None else functools.partial(program.record, *record_data[0], **record_data[1])
    whole = program.batch_size is not None
    dtype = _loop.weight_dtype(params)

    def lane(settings: dict[str, dict[str, jax.Array]], key: jax.Array, params: PyTree, orders: Any) -> Lanes:
        optimizer = make_optimizer(program.optimizer, settings["optimizer"])
        loss = functools.partial(program.loss, **settings["loss"])

        def update(shuffled: list[jax.Array], carry: tuple) -> tuple:
            state, kept, first, done = carry
            size = sizes[0] if len(sizes) == 1 else sizes[done]
            held = jnp.minimum(size if program.batch_size is None else program.batch_size, n - first)
            key = _loop.loss_key(state)
            batch_loss = _batches.loss_of_batch(loss, program.rows, shuffled, first, held, key, whole=whole)
            state, value = _loop.update(optimizer, state, batch_loss)
            done = done + 1
            kept = kept._replace(
                total=kept.total + held.astype(value.dtype) * value,
                examples=kept.examples + held,
                diverged_at=_loop.first_not_finite(kept.diverged_at, done, value),
            )
            # Record r is due after ⌈r · updates / records⌉ updates. Equal in every lane, so that this stays a branch.
            due = done * program.records // updates > (done - 1) * program.records // updates
            kept = jax.lax.cond(due, write, lambda state, kept, row: kept, state, kept, done)
            return state, kept, first + held, done

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

        # Positions and numbers of updates are equal in every lane, so that the conditions of the loops are not batched.
        def epoch(carry: tuple) -> tuple:
            number, state, kept, done = carry
            visited = jnp.pad(orders[number], (0, program.rows))
            shuffled = [a[visited] for a in (inputs, targets)]
            state, kept, _, done = jax.lax.while_loop(
                lambda carry: (carry[2] < n) & (carry[3] < updates),
                functools.partial(update, shuffled),
                (state, kept, nothing, done),
            )
            return number + 1, state, kept, done

        state = _loop.begin(optimizer, params, key)
        value = jax.eval_shape(loss, params, inputs[:1], targets[:1], jnp.ones(1, dtype), key)
        rows = None if record is None else jax.eval_shape(record, state)
        losses, rows = jax.tree.map(lambda a: jnp.zeros((program.records, *a.shape), a.dtype), (value, rows))
        nothing = jnp.zeros((), jnp.int32)
        kept = _Kept(losses, rows, jnp.zeros((), value.dtype), nothing, nothing)
        start = (nothing, state, kept, nothing)
        _, state, kept, _ = jax.lax.while_loop(lambda carry: carry[3] < updates, epoch, start)
        diverged_at = _loop.first_not_finite(kept.diverged_at, updates, state.params)
        losses = kept.losses.at[-1].set(jnp.where(diverged_at > 0, jnp.inf, kept.losses[-1]))
        return Lanes(state.params, losses, kept.record, diverged_at)

    over_seeds = jax.vmap(lane, in_axes=(None, 0, 0, 1))
    return jax.vmap(over_seeds, in_axes=(0, None, None, None))(settings, keys, params, orders)
