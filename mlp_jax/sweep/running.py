"""A sweep: plan its calls, execute them, collect their results with named axes. Host-level."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mlp_jax import _checks
from mlp_jax.curvature.types import Progress
from mlp_jax.sweep import grid as grids
from mlp_jax.sweep import lanes, spread
from mlp_jax.sweep.grid import Block
from mlp_jax.sweep.lanes import Lanes
from mlp_jax.sweep.result import Result
from mlp_jax.training import State, _batches, _door, _loop
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
    batch_sizes: Sequence[int | _batches.Schedule],
    learning_rates: Sequence[float] | Mapping[Any, Sequence[float]],
    seeds: int | Sequence[int],
    epochs: int | None = None,
    updates: int | Mapping[Any, int] | None = None,
    replace: bool = False,
    optimizer: Callable[..., optax.GradientTransformation] = optax.sgd,
    settings: Mapping[str, Sequence[float]] | None = None,
    loss_settings: Mapping[str, Sequence[float]] | None = None,
    record: Callable[[State], PyTree] | None = None,
    records: int | None = None,
    programs: str = "one",
    micro_batch: int | None = None,
    lanes_at_once: int | None = None,
    progress: Progress | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Result:
    """Train every point of a grid of batch size × learning rate × settings from every seed. Host-level.

    The run of seed s is that of

        init_key, run_key = jax.random.split(jax.random.fold_in(key, s))
        training.train(run_key, loss, init(init_key), data, optimizer=optimizer(learning_rate), batch_size=..., ...)

    so that for one seed every batch size and every setting has the same start and the same order of examples. The
    results agree to rounding, unless the loss draws random numbers from its key.

    Runs of one batch size are lanes of one vmapped program. The batch size is traced: a batch is visited in
    micro-batches of a fixed number of rows. So one compilation serves every batch size, as many learning rates of other
    values, and every later call with the same functions and shapes.

    Parameters
    ----------
    key, loss, record, replace
        As in `training.train`. The loss must be a weighted mean over examples plus penalties of params; it takes
        `loss_settings` by name.
    init
        key -> params.
    data
        A `Dataset`, whose `train` is used, or a pair (inputs (n, …), targets (n, …)).
    batch_sizes
        Each from 1 to n, or a function of the number of the update, as in `training.train`.
    learning_rates
        The same for every batch size, or a mapping from each batch size to as many.
    seeds
        Their number, for 0, 1, ...; or the integers themselves, such as `range(8, 16)`.
    epochs, updates
        The length of the runs: give one of the two. `updates` may be a mapping from each batch size to its own.
    optimizer
        (learning_rate, **settings) -> optax transformation; both may be traced.
    settings, loss_settings
        Further axes of the grid, by name: arguments of `optimizer` and of `loss`.
    records
        Number of records, evenly spaced in updates, the last at the end; by default one an epoch, or 20 for `updates`.
    programs
        "one"; or "per batch size", without micro-batches: seconds of compilation for each, then faster.
    micro_batch
        Rows of a micro-batch; by default the batch size for which the whole sweep costs least.
    lanes_at_once
        Lanes of one call on one device; by default as many as fit in 1 GiB. Memory is that of two calls: a shuffled
        copy of the data for each seed; parameters, optimizer state and records for each lane. The orders of all epochs,
        epochs × seeds × n integers, come on top, on the host if there is a mesh.
    progress
        Called with the numbers of finished and of all calls after each; with a mesh, in every process.
    mesh
        A `jax.sharding.Mesh` whose devices share the lanes of each call: seeds, settings or both are split, so that the
        fullest device has the fewest lanes. The data are on every device. With several processes, each makes the same
        call and has the whole result. It agrees with that of no mesh to rounding; bit for bit if a device computes as
        many lanes at a time as it would alone, as with `lanes_at_once=1`.

    Raises
    ------
    TypeError, ValueError
        As `training.train`; also for an empty axis, both or neither of `epochs` and `updates`, a name used twice, more
        records than updates, a loss that is not a mean, and an `rbg` key, which draws other numbers under vmap.

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
    _checks.key(key)
    if "rbg" in (kind := str(jax.random.key_impl(key))):
        raise ValueError(f"key: got one of {kind}, which draws other numbers under vmap, expected one of threefry2x32.")
    inputs, targets = _door.data_pair(getattr(data, "train", data))
    grid = grids.as_grid(len(inputs), batch_sizes, learning_rates, settings, loss_settings, seeds)
    budget = grids.as_budget(grid, len(inputs), epochs, updates, records)
    rows = grids.micro_batch(micro_batch, grid, budget)
    if programs not in ("one", "per batch size"):
        raise ValueError(f'programs: got {programs!r}, expected "one" or "per batch size".')
    if lanes_at_once is not None:
        lanes_at_once = _checks.integer(lanes_at_once, "lanes_at_once")
    mesh = None if mesh is None else spread.as_mesh(grid, mesh)
    if record is not None and not isinstance(record, jax.tree_util.Partial):
        record = jax.tree_util.Partial(record)

    _checks.leaves(jax.eval_shape(init, key), "init(key)", floating=True)
    numbers = jnp.asarray(grid.seeds, jnp.uint32)
    keys, starts, orders = lanes.prepare(init, budget.epochs(len(inputs)), len(inputs), bool(replace), key, numbers)
    _checks.params(starts, "init(key)")
    vectors = [grid.vectors(batch, _loop.weight_dtype(starts)) for batch in range(len(grid.batch_sizes))]
    _door.require_mean(loss, starts, vectors[0]["loss"], inputs, targets, keys)
    fixed = programs == "per batch size"
    sizes = [size if fixed and not callable(size) else None for size in grid.batch_sizes]
    recorded, record_data = (None, ((), {})) if record is None else (record.func, (record.args, record.keywords))
    plan = _Plan(
        grid,
        budget,
        [lanes.Program(loss, optimizer, budget.records, size or rows, size, recorded) for size in sizes],
        vectors,
        (keys, starts, orders if mesh is None else np.asarray(orders)),
        (inputs, targets, record_data),
        mesh,
    )
    fitting = _lanes_that_fit(plan, record)  # also if not needed: it traces the optimizer and the record once
    over = (1, 1) if mesh is None else mesh.devices.shape
    blocks = list(grids.cut_into_blocks(grid, lanes_at_once or fitting, over))
    return _collect(plan, _execute(plan, blocks, progress))


class _Plan(NamedTuple):
    """The arguments of all calls.

    programs, settings: one for each batch size; by_seed: keys, initial parameters and orders, from `lanes.prepare`;
    common: inputs, targets, and the data and keywords of `record`; mesh: from `spread.as_mesh`, or None.
    """

    grid: grids.Grid
    budget: grids.Budget
    programs: list[lanes.Program]
    settings: list[dict[str, dict[str, jax.Array]]]
    by_seed: tuple[jax.Array, PyTree, Any]
    common: tuple
    mesh: jax.sharding.Mesh | None


def _lanes_that_fit(plan: _Plan, record: Any) -> int:
    """Return how many lanes take about 1 GiB: shuffled data, state and gradient, records."""
    keys, starts, _ = plan.by_seed
    one, setting = jax.eval_shape(lambda: jax.tree.map(lambda a: a[0], (starts, plan.settings[0]["optimizer"])))
    optimizer = plan.programs[0].optimizer
    state = jax.eval_shape(lambda p, s: _loop.begin(lanes.make_optimizer(optimizer, s), p, keys[0]), one, setting)
    kept = 0 if record is None else plan.budget.records * _bytes(jax.eval_shape(record, state))
    return max(1, _MEMORY // (2 * _bytes(plan.common[:2]) + 4 * _bytes((one, state.optimizer_state)) + kept))


def _bytes(shapes: PyTree) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(shapes))


def _execute(plan: _Plan, blocks: list[Block], progress: Progress | None) -> Iterator[tuple[Block, Lanes]]:
    """Yield each block and the result of its call, while the next calls are computed."""
    call = _calls(plan)
    waiting: collections.deque[tuple[Block, Lanes]] = collections.deque()
    to_start = iter(blocks)
    for done in range(1, len(blocks) + 1):
        while len(waiting) < _IN_FLIGHT and (block := next(to_start, None)) is not None:
            waiting.append((block, call(block)))
        block, ends = waiting.popleft()
        yield block, spread.fetch(block, ends)
        if progress is not None:
            progress(done, len(blocks))


def _calls(plan: _Plan) -> Callable[[Block], Lanes]:
    """Return the function that starts the call of a block."""
    keys, starts, orders = plan.by_seed
    common = plan.common if plan.mesh is None else spread.everywhere(plan.common, plan.mesh)

    def call(block: Block) -> Lanes:
        sizes, updates = plan.budget.sizes[block.batch], plan.budget.updates[block.batch]
        shared = (jnp.asarray(sizes, jnp.int32), jnp.asarray(updates, jnp.int32), *common)
        program, settings = plan.programs[block.batch], plan.settings[block.batch]
        if plan.mesh is not None:
            return spread.run_lanes(plan.mesh, block, (keys, starts, orders, settings), shared, program)
        mine = (*_part((keys, starts), block.seeds), _part(orders, block.seeds, axis=1))
        return lanes.run_lanes(program, *mine, _part(settings, block.settings), *shared)

    return call


def _part(values: PyTree, part: slice, axis: int = 0) -> PyTree:
    """Return a slice of every leaf; without a copy if it is all of it."""
    index = (slice(None),) * axis + (part,)
    return jax.tree.map(lambda a: a if part.stop - part.start == a.shape[axis] else a[index], values)


def _collect(plan: _Plan, ends: Iterator[tuple[Block, Lanes]]) -> Result:
    """Return the results of all blocks with the axes of the grid."""
    grid = plan.grid
    flat = (grid.shape[0], math.prod(grid.shape[1:-1]), grid.shape[-1])
    whole: Any = None
    for block, part in ends:
        if whole is None:
            whole = jax.tree.map(lambda a: np.empty((*flat, *a.shape[2:]), a.dtype), part)
        for leaf, rows in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
            leaf[block.batch, block.settings, block.seeds] = rows
    all_lanes = jax.tree.map(lambda a: a.reshape(*grid.shape, *a.shape[3:]), whole)
    made, visited = plan.budget.at_records(len(plan.common[0]))
    return Result(grid.axes, grid.coordinates(), made, visited, **all_lanes._asdict())
