"""From a grid of settings to the calls of one program, and from what they return to named axes. Host-level."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import _checks, training
from mlp_jax.sweep import grid as grids
from mlp_jax.sweep import lanes, spread
from mlp_jax.sweep.grid import Block, Grid
from mlp_jax.sweep.result import Result
from mlp_jax.training import checks
from mlp_jax.tree import PyTree

_MEMORY = 2**30
# Calls in flight: XLA computes them side by side, and lanes of small networks do not fill two cores by themselves.
_IN_FLIGHT = 2


def run(
    key: jax.Array,
    loss: Callable[..., jax.Array],
    init: Callable[[jax.Array], PyTree],
    data: Any,
    *,
    batch_sizes: Sequence[int],
    learning_rates: Sequence[float] | Mapping[int, Sequence[float]],
    seeds: int | Sequence[int],
    epochs: int | None = None,
    updates: int | Mapping[int, int] | None = None,
    optimizer: Callable[..., optax.GradientTransformation] = optax.sgd,
    settings: Mapping[str, Sequence[float]] | None = None,
    loss_settings: Mapping[str, Sequence[float]] | None = None,
    record: Callable[[training.State], PyTree] | None = None,
    records: int | None = None,
    programs: str = "one",
    micro_batch: int | None = None,
    lanes_at_once: int | None = None,
    progress: Callable[[int, int], Any] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Result:
    """Train every point of a grid of batch size × learning rate × settings from every seed. Host-level.

    The run of seed s is that of

        init_key, run_key = jax.random.split(jax.random.fold_in(key, s))
        training.train(run_key, loss, init(init_key), data, optimizer=optimizer(learning_rate), batch_size=..., ...)

    so that for one seed every batch size and every setting has the same start and the same order of examples. It
    differs from that call by rounding alone (and, where the loss draws numbers from its key, by those draws).

    Runs of one batch size are lanes of one vmapped program, in which the batch size is a number like any other: a batch
    is visited in micro-batches of a fixed number of rows, as many as it needs. So one compilation serves every batch
    size, every set of learning rates as long, and every later call with the same functions and shapes.

    Parameters
    ----------
    key
        A JAX random key.
    loss
        `(params, inputs, targets, weights, key, **loss_settings) -> scalar`: a mean with the weights, which are 1 or 0,
        and any penalties of params. Called with the same function object, a second sweep compiles nothing.
    init
        key -> params.
    data
        A `Dataset`, whose `train` is used, or a pair (inputs (n, …), targets (n, …)).
    batch_sizes
        Each from 1 to n.
    learning_rates
        Finite numbers: the same for every batch size, or a mapping from each batch size to as many.
    seeds
        How many, for 0, 1, ...; or the integers themselves, such as `range(8, 16)` for fresh ones.
    epochs, updates
        How long, one of the two: each batch size for as many epochs, or for as many updates, which may be a mapping
        from each batch size to its own (such as those of an equal time).
    optimizer
        (learning_rate, **settings) -> optax transformation; both may be traced.
    settings, loss_settings
        Further axes of the grid, by name: arguments of `optimizer` and of `loss`.
    record
        `State -> pytree`, called at each record; `jax.tree_util.Partial(function, *arrays)` passes data as arguments.
    records
        How many, evenly spaced in updates, the last at the end; when None, one an epoch, or 20 for `updates`.
    programs
        "one"; or "per batch size", without micro-batches: compiles for seconds each, and is faster once compiled.
    micro_batch
        Rows of a micro-batch; the batch size that makes the least work of the whole sweep when None.
    lanes_at_once
        Lanes of one call on one device, two calls at a time; as many as fit in 1 GiB when None. Memory is that of 2 ×
        these lanes: for each seed a shuffled copy of the data, for each lane parameters, optimizer state and records.
        The orders of all epochs, epochs × seeds × n integers, are beside that: all on one device, then, with a
        mesh, on the host.
    progress
        Called with the number of calls that are done, and of all, after each; with a mesh, in every process.
    mesh
        When given, such as `mesh=jax.make_mesh((jax.device_count(),), ("devices",))`, its devices share the lanes of
        each call: seeds, settings or both are split, whichever leaves the fullest device the least. The data are on
        every device, the rest only where its lane is. In several processes each makes the same call, and has the whole
        result. It is that without a mesh, to rounding: fewer lanes side by side may be summed in another order; bit for
        bit where a device computes as many at a time as it would alone, as with `lanes_at_once=1`.

    Returns
    -------
    Result

    Raises
    ------
    TypeError, ValueError
        As `training.train`; also an empty axis, both or neither of `epochs` and `updates`, a name used twice, more
        records than updates, a loss that is not a mean, a `mesh` that is not a Mesh, or an `rbg` key: it draws other
        numbers under vmap than in one run.

    Examples
    --------
    >>> data = (jnp.arange(8.0), 3.0 * jnp.arange(8.0))
    >>> def loss(w, x, y, weights, key):
    ...     return jnp.sum(weights * (w * x - y) ** 2) / jnp.sum(weights)
    >>> result = run(jax.random.key(0), loss, lambda key: jax.random.normal(key), data,
    ...              batch_sizes=(2, 4, 8), learning_rates=(0.01, 10.0), seeds=3, epochs=50)
    >>> result.axes, result.loss.shape
    (('batch_size', 'learning_rate', 'seed'), (3, 2, 3, 50))
    >>> bool(np.all(result.diverged_at[:, 1] > 0)), bool(np.allclose(result.params[:, 0], 3.0, atol=1e-3))
    (True, True)
    """
    _require_key(key)
    _require_functions(init, record, progress)
    inputs, targets = training.require_data(getattr(data, "train", data))
    settings, loss_settings = ({} if given is None else given for given in (settings, loss_settings))
    grid = grids.as_grid(len(inputs), batch_sizes, learning_rates, settings, loss_settings, seeds)
    budget = grids.as_budget(grid, len(inputs), epochs, updates, records)
    mesh = None if mesh is None else spread.as_mesh(grid, mesh)
    rows = grids.micro_batch(micro_batch, grid, budget)
    if not isinstance(programs, str) or programs not in ("one", "per batch size"):
        raise ValueError(f'programs: got {programs!r}, expected "one" or "per batch size".')
    if record is not None and not isinstance(record, jax.tree_util.Partial):
        record = jax.tree_util.Partial(record)
    seed_numbers = jnp.asarray(grid.seeds, jnp.uint32)
    one = jax.eval_shape(init, key)
    _checks.leaves(one, "init(key)", floating=True)
    [name for name in grid.settings if name not in grid.for_loss]
    _checks.function(optimizer, "optimizer", "(learning_rate, **settings) -> optax transformation")
    keys, starts, orders = lanes.prepare(init, budget.epochs, len(inputs), key, seed_numbers)
    _checks.params(starts, "init(key)")
    vectors = [grid.vectors(batch, training.widest_dtype(starts)) for batch in range(len(grid.batch_sizes))]
    _require_mean(loss, starts, vectors[0]["loss"], inputs, targets, keys)

    data_and_record = (inputs, targets, ((), {}) if record is None else (record.args, record.keywords))
    if mesh is not None:
        data_and_record, orders = spread.place(data_and_record, mesh), np.asarray(orders)

    def call(block: Block) -> lanes.Lanes:
        size = grid.batch_sizes[block.batch]
        each = programs == "per batch size"
        function = None if record is None else record.func
        program = lanes.Program(
            loss, optimizer, budget.records, size if each else rows, size if each else None, function
        )
        by_lane = keys, starts, orders, vectors[block.batch]
        length = jnp.asarray(size, jnp.int32), jnp.asarray(budget.updates[block.batch], jnp.int32)
        if mesh is not None:
            return spread.run_lanes(mesh, block, by_lane, (*length, *data_and_record), program)
        return lanes.run_lanes(program, *_of(block, by_lane), *length, *data_and_record)

    one, setting = jax.eval_shape(lambda: jax.tree.map(lambda a: a[0], (starts, vectors[0]["optimizer"])))
    state = jax.eval_shape(
        lambda p, s: training.State(p, lanes.make_optimizer(optimizer, s).init(p), jnp.int32(0), keys[0]),
        one,
        setting,
    )
    if record is not None:
        jax.eval_shape(record, state)
    if lanes_at_once is None:
        lanes_at_once = _lanes_that_fit(one, state, record, budget.records, inputs, targets)
    over = (1, 1) if mesh is None else mesh.devices.shape
    blocks = list(grids.cut_into_blocks(grid, lanes_at_once, over))
    ends = _collect(grid, _in_turn(call, blocks, progress))
    made, visited = budget.at_records(grid, len(inputs))
    return Result(grid.axes, grid.coordinates(), made, visited, ends.loss, ends.record, ends.diverged_at, ends.params)


def _of(block: Block, by_lane: tuple) -> tuple:
    """Return the keys, start values, orders and settings of a block."""
    keys, starts, orders, settings = by_lane
    return (
        *(_part(a, block.seeds) for a in (keys, starts)),
        _part(orders, block.seeds, axis=1),
        _part(settings, block.settings),
    )


def _require_key(key: Any) -> None:
    """Refuse keys whose numbers under vmap are not those of one run: a lane would not be the run that it stands for."""
    _checks.key(key)
    implementation = str(jax.random.key_impl(key))
    if "rbg" in implementation:
        raise ValueError(
            f"key: got one of {implementation}, which draws other numbers under vmap, so that no lane would be the run"
            " of training.train; expected one of threefry2x32, JAX's default."
        )


def _require_functions(init: Any, record: Any, progress: Any) -> None:
    _checks.function(init, "init", "(key) -> params")
    if record is not None:
        _checks.function(record, "record", "(state) -> pytree")
    if progress is not None:
        _checks.function(progress, "progress", "(done, all)")


def _part(values: PyTree, part: slice, axis: int = 0) -> PyTree:
    """Return a part of every leaf; the leaves themselves where it is all of them, without a copy."""
    index = (slice(None),) * axis + (part,)
    return jax.tree.map(lambda a: a if part.stop - part.start == a.shape[axis] else a[index], values)


def _in_turn(
    call: Callable[[Block], lanes.Lanes], blocks: list[Block], progress: Callable[[int, int], Any] | None
) -> Iterator[tuple[Block, lanes.Lanes]]:
    """Yield each block with what its call returned, while the next calls are computed."""
    waiting: collections.deque[tuple[Block, lanes.Lanes]] = collections.deque()
    to_start, finished = iter(blocks), 0
    while finished < len(blocks):
        while len(waiting) < _IN_FLIGHT and (block := next(to_start, None)) is not None:
            waiting.append((block, call(block)))
        block, ends = waiting.popleft()
        yield block, spread.fetch(block, ends)
        finished += 1
        if progress is not None:
            progress(finished, len(blocks))


def _collect(grid: Grid, ends: Iterator[tuple[Block, lanes.Lanes]]) -> Any:
    """Return the lanes of all blocks with the axes of the grid."""
    flat = (grid.shape[0], math.prod(grid.shape[1:-1]), grid.shape[-1])
    whole: Any = None
    for block, part in ends:
        if whole is None:
            whole = jax.tree.map(lambda a: np.empty((*flat, *a.shape[2:]), a.dtype), part)
        for leaf, rows in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
            leaf[block.batch, block.settings, block.seeds] = rows
    return jax.tree.map(lambda a: a.reshape(*grid.shape, *a.shape[3:]), whole)


def _lanes_that_fit(
    one: PyTree, state: training.State, record: Any, records: int, inputs: jax.Array, targets: jax.Array
) -> int:
    """Return how many lanes take about 1 GiB: data as in the order of an epoch, state and gradient, records."""
    kept = 0 if record is None else records * _bytes(jax.eval_shape(record, state))
    return max(1, _MEMORY // (2 * _bytes((inputs, targets)) + 4 * _bytes((one, state.optimizer_state)) + kept))


def _bytes(shapes: PyTree) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(shapes))


def _require_mean(
    loss: Callable[..., jax.Array], starts: PyTree, settings: Any, inputs: Any, targets: Any, keys: jax.Array
) -> None:
    """Raise ValueError unless the loss of some rows is the mean of the losses of two halves of them."""
    one, its_settings = jax.eval_shape(lambda: jax.tree.map(lambda a: a[0], (starts, settings)))
    rows = min(16, len(inputs) // 2 * 2)
    training.require_loss(loss, one, inputs, targets, keys[0], max(1, rows), **its_settings)
    checks.require_class_numbers(loss, one, inputs, targets, keys[0], max(1, rows), **its_settings)
    if rows == 0:
        return
    whole, halves = map(float, lanes.loss_of_halves(loss, rows, starts, settings, inputs, targets, keys))
    if np.isfinite(whole) and abs(whole - halves) > 1e-3 * max(abs(whole), abs(halves)):
        raise ValueError(
            f"loss: got {whole:.6g} for {rows} examples and {halves:.6g} as the mean of two halves, expected the same:"
            " a mean with the weights."
        )
