"""The grid of a sweep: its axes, the length of its runs, and its blocks, one for each call."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlp_jax import _checks
from mlp_jax.training import _batches

_MOST_SEEDS = 2**24  # the orders of more would fit in no memory


class Grid(NamedTuple):
    """The axes: batch sizes; learning rates of each; other settings by name, and which are for the loss; seeds."""

    batch_sizes: tuple[int | _batches.Schedule, ...]
    rates: np.ndarray
    settings: dict[str, np.ndarray]
    for_loss: frozenset[str]
    seeds: tuple[int, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes, in order."""
        return ("batch_size", "learning_rate", *self.settings, "seed")

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return (*self.rates.shape, *map(len, self.settings.values()), len(self.seeds))

    def coordinates(self) -> dict[str, np.ndarray]:
        """Return the values along each axis by name; learning rates are a matrix if they differ by batch size."""
        rates = self.rates[0] if np.all(self.rates == self.rates[0]) else self.rates
        arrays = (np.array(self.batch_sizes), rates, *self.settings.values(), np.array(self.seeds))
        return dict(zip(self.axes, arrays, strict=True))

    def vectors(self, batch: int, dtype: jnp.dtype) -> dict[str, dict[str, jax.Array]]:
        """Return each setting as a vector over the product of their values, for the optimizer and for the loss."""
        product = np.meshgrid(self.rates[batch], *self.settings.values(), indexing="ij")
        names = ("learning_rate", *self.settings)
        vectors = {name: jnp.asarray(a.ravel(), dtype) for name, a in zip(names, product, strict=True)}
        return {
            "optimizer": {name: a for name, a in vectors.items() if name not in self.for_loss},
            "loss": {name: a for name, a in vectors.items() if name in self.for_loss},
        }


class Budget(NamedTuple):
    """For each entry of the batch sizes, the size of each update, or one of all, and the updates; number of records."""

    sizes: list[np.ndarray]
    updates: np.ndarray
    records: int

    def epochs(self, num_examples: int) -> int:
        """Return the number of epochs that the longest run begins."""
        return max(-(-int(n) // num_examples) for n in self._visited(num_examples, self.updates))

    def at_records(self, num_examples: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (batch sizes, records) updates made and examples visited at each record."""
        made = -(-np.arange(1, self.records + 1) * self.updates[:, None] // self.records)
        return made, np.stack(self._visited(num_examples, made))

    def _visited(self, num_examples: int, made: np.ndarray) -> list[np.ndarray]:
        return [_batches.visited(sizes, num_examples, row) for sizes, row in zip(self.sizes, made, strict=True)]


class Block(NamedTuple):
    """The lanes of one call: the position of its batch size, and slices of settings and seeds."""

    batch: int
    settings: slice
    seeds: slice


def as_grid(
    num_examples: int,
    batch_sizes: Sequence[int | _batches.Schedule],
    learning_rates: Sequence[float] | Mapping[Any, Sequence[float]],
    settings: Mapping[str, Sequence[float]] | None,
    loss_settings: Mapping[str, Sequence[float]] | None,
    seeds: int | Sequence[int],
) -> Grid:
    """Return the grid; ValueError if an axis is empty or a value out of range."""
    limits = ("batch_sizes", 1, num_examples, "the number of examples")
    sizes = tuple(size if callable(size) else _checks.integer(size, *limits) for size in batch_sizes)
    if not sizes:
        raise ValueError("batch_sizes: got none, expected one or more.")
    if np.ndim(seeds) == 0:
        seeds = range(_checks.integer(seeds, "seeds", 1, _MOST_SEEDS))
    numbers = tuple(_checks.integer(seed, "seeds", 0, 2**32 - 1) for seed in _axis(seeds, "seeds").tolist())
    settings, loss_settings = dict(settings or {}), dict(loss_settings or {})
    names = ("learning_rate", *settings, *loss_settings)
    reserved = {"batch_size", "seed", "updates", "diverged", "diverged_at", "loss"}
    reserved |= {"params", "inputs", "targets", "weights", "key"} if loss_settings else set()
    if len(set(names)) < len(names) or reserved & set(names):
        raise ValueError(f"settings: got the names {names}, expected each once, and none of {sorted(reserved)}.")
    rates = [_axis(r, "learning_rates", float) for r in _by_batch_size(learning_rates, sizes, "learning_rates")]
    others = {name: _axis(values, name, float) for name, values in (settings | loss_settings).items()}
    return Grid(sizes, np.stack(rates), others, frozenset(loss_settings), numbers)


def _axis(values: Any, name: str, dtype: Any = None) -> np.ndarray:
    array = np.asarray(_checks.numbers(values, name, "(n,)", finite=True), dtype)
    if not array.size:
        raise ValueError(f"{name}: got none, expected one or more.")
    return array


def _by_batch_size(values: Any, sizes: tuple, name: str) -> list:
    """Return one entry for each batch size: from a mapping, or the same for all."""
    if not isinstance(values, Mapping):
        return [values] * len(sizes)
    if missing := [size for size in sizes if size not in values]:
        raise ValueError(f"{name}: got none for the batch sizes {missing}, expected an entry for each.")
    return [values[size] for size in sizes]


def as_budget(
    grid: Grid, num_examples: int, epochs: int | None, updates: int | Mapping[Any, int] | None, records: int | None
) -> Budget:
    """Return the length of each run; ValueError unless either epochs or updates are given, and records fit."""
    if (epochs is None) == (updates is None):
        raise ValueError(f"epochs, updates: got {epochs} and {updates}, expected one of the two.")
    name, length = ("epochs", epochs) if updates is None else ("updates", updates)
    lengths = [_checks.integer(n, name, 1, 2**31 - 1) for n in _by_batch_size(length, grid.batch_sizes, name)]
    runs = zip(grid.batch_sizes, lengths, strict=True)
    sizes, made = zip(*(_batches.sizes_of_run(size, num_examples, **{name: n}) for size, n in runs), strict=True)
    totals = np.array(made)
    records = lengths[0] if epochs is not None and records is None else records
    records = min(20, totals.min()) if records is None else records
    records = _checks.integer(records, "records", 1, int(totals.min()), "the updates")
    if records * int(totals.max()) >= 2**31:
        raise ValueError(f"records: got {records} of {totals.max()} updates, expected a product below 2^31.")
    return Budget(list(sizes), totals, records)


def micro_batch(rows: int | None, grid: Grid, budget: Budget) -> int:
    """Return the rows of a micro-batch: the number given, or the batch size for which the sweep costs least."""
    sizes = np.concatenate(budget.sizes)
    if rows is not None:
        return _checks.integer(rows, "micro_batch", 1, int(sizes.max()))
    made = [np.full(len(each), total / len(each)) for each, total in zip(budget.sizes, budget.updates, strict=True)]
    return _batches.cheapest_rows(sizes, np.concatenate(made))


def over_devices(grid: Grid, number: int) -> tuple[int, int]:
    """Return the numbers of devices for settings and for seeds that give the fullest device the fewest lanes.

    Ties go to the fewest seeds for a device, since each seed has its own copy of the data.
    """
    num_seeds, num_settings = grid.shape[-1], math.prod(grid.shape[1:-1])

    def fullest(over: tuple[int, int]) -> tuple[int, int]:
        seeds = -(-num_seeds // over[1])
        return -(-num_settings // over[0]) * seeds, seeds

    return min(((n, number // n) for n in range(1, number + 1) if number % n == 0), key=fullest)


def cut_into_blocks(grid: Grid, lanes_at_once: int, over: tuple[int, int] = (1, 1)) -> Iterator[Block]:
    """Cut the lanes of each batch size into blocks of one shape, with `lanes_at_once` lanes or fewer on each device.

    The last block may overlap the one before. `over`: numbers of devices for settings and for seeds.
    """
    num_seeds, num_settings = grid.shape[-1], math.prod(grid.shape[1:-1])
    over_seeds = _cut(num_seeds, lanes_at_once * over[1])
    seeds_of_one = -(-(over_seeds[0].stop - over_seeds[0].start) // over[1])
    over_settings = _cut(num_settings, lanes_at_once // seeds_of_one * over[0])
    # Small batches first, because their calls take longest.
    first = [0 if callable(size) else size for size in grid.batch_sizes]
    for batch in sorted(range(grid.shape[0]), key=first.__getitem__):
        for settings, seeds in itertools.product(over_settings, over_seeds):
            yield Block(batch, settings, seeds)


def _cut(length: int, at_once: int) -> list[slice]:
    size = -(-length // -(-length // max(1, min(at_once, length))))
    return [slice(min(start, length - size), min(start, length - size) + size) for start in range(0, length, size)]
