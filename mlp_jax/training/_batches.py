"""Batches of any size in one program: sizes that change along a run, and micro-batches of a fixed number of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks
from mlp_jax.training import _loop
from mlp_jax.tree import PyTree

Schedule = Callable[[jax.Array], Any]

# Cost of a micro-batch beyond its rows, in rows: measured for 64-32-10 on a CPU.
_ROWS_OF_OVERHEAD = 10
_AT_ONCE = 1024  # sizes of a schedule


def sizes_of_run(
    batch_size: int | Schedule, num_examples: int, *, epochs: int = 0, updates: int = 0
) -> tuple[np.ndarray, int]:
    """Return the batch size of each update, or one of all, and the number of updates; give one of the two.

    ValueError if a size is not from 1 to the number of examples.
    """
    if not callable(batch_size):
        return np.array([batch_size]), updates or epochs * -(-num_examples // batch_size)
    sizes: list[int] = []
    left, epochs_left = num_examples, epochs or -1
    while True:
        with jax.ensure_compile_time_eval():
            numbers = jnp.arange(len(sizes), len(sizes) + _AT_ONCE, dtype=jnp.int32)
            values = _checks.numbers(jax.vmap(batch_size)(numbers), "batch_size", "(updates,)")
        for value in np.asarray(values, float).tolist():
            if not 1 <= value <= num_examples:
                limits = f"from 1 to {num_examples}, the number of examples"
                raise ValueError(f"batch_size: got {value:g} at update {len(sizes)}, expected an integer {limits}.")
            sizes.append(round(value))
            left -= min(left, sizes[-1])
            if left == 0:
                left, epochs_left = num_examples, epochs_left - 1
            if epochs_left == 0 or len(sizes) == updates:
                return np.array(sizes), len(sizes)


def visited(sizes: np.ndarray, num_examples: int, made: np.ndarray) -> np.ndarray:
    """Return the examples visited after so many updates; a single size is that of every update."""
    if len(sizes) == 1:
        whole, rest = np.divmod(made, -(-num_examples // int(sizes[0])))
        return whole * num_examples + rest * int(sizes[0])
    total, totals = 0, []
    for size in sizes.tolist():
        total += min(size, num_examples - total % num_examples)
        totals.append(total)
    return np.array(totals)[made - 1]


def cheapest_rows(sizes: np.ndarray, updates: np.ndarray) -> int:
    """Return the rows of a micro-batch, one of the batch sizes, for which so many updates of each size cost least."""
    rows = np.unique(sizes)
    work = [np.sum(updates * -(-sizes // row) * (row + _ROWS_OF_OVERHEAD)) for row in rows]
    return int(rows[np.argmin(work)])


def loss_of_batch(
    loss: Callable[..., Any],
    rows: int,
    shuffled: list[jax.Array],
    first: Any,
    held: jax.Array,
    key: jax.Array,
    *,
    whole: bool = False,
) -> Callable[[PyTree], jax.Array]:
    """Return params -> loss of the examples from `first` to `first + held − 1`, the mean over their micro-batches.

    shuffled: inputs and targets with `rows` more at their end, else dynamic_slice would move the start of the last
    micro-batch; whole: whether every batch is one micro-batch. It has its own derivative rule, since a loop has no
    reverse mode.
    """

    def micro_batch(number: jax.Array, function: Callable[..., Any], params: PyTree) -> tuple[Any, jax.Array]:
        """Return the value of a function at a micro-batch, and the share of the batch that it holds."""
        dtype = _loop.weight_dtype(params)
        here = jnp.minimum(rows, held - number * rows)
        chosen = [jax.lax.dynamic_slice_in_dim(a, first + number * rows, rows) for a in shuffled]
        weights = (jnp.arange(rows, dtype=jnp.int32) < here).astype(dtype)
        its_key = key if whole else jax.random.fold_in(key, number)
        return function(params, *chosen, weights, its_key), here.astype(dtype) / held.astype(dtype)

    def over_batch(function: Callable[..., Any], params: PyTree) -> Any:
        zero = jnp.zeros((), jnp.int32)
        if whole:
            return micro_batch(zero, function, params)[0]

        def add(number: jax.Array, sums: Any) -> Any:
            values, share = micro_batch(number, function, params)
            return jax.tree.map(lambda a, b: a + share.astype(a.dtype) * b, sums, values)

        shapes = jax.eval_shape(lambda: micro_batch(zero, function, params)[0])
        start = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        return jax.lax.fori_loop(0, -(-held // rows), add, start)

    @jax.custom_vjp
    def value(params: PyTree) -> jax.Array:
        return over_batch(loss, params)

    value.defvjp(
        lambda params: over_batch(jax.value_and_grad(loss), params),
        lambda gradient, cotangent: (jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, gradient),),
    )
    return value
