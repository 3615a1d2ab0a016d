"""The measurements of the batch-size comparison: tuning, runs from fresh seeds, time and noise."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from experiments._shared import all_devices
from mlp_jax import datasets, gradient_noise, losses, mlp, sweep, training

ACTIVATION = jnp.tanh


class Problem(NamedTuple):
    """Training, validation and test examples, and the layer sizes of the network."""

    train: datasets.Examples
    validation: datasets.Examples
    test: datasets.Examples
    sizes: tuple[int, ...]


class Tuned(NamedTuple):
    """One budget: the search on validation examples, and the chosen rates from fresh seeds.

    `search` and `runs` are sweeps with axes (batch_size, learning_rate, seed), `runs` with one rate. `rates` (batch
    sizes,) are those chosen; `at_edge` (batch sizes,) tells which are the smallest or largest of the search.
    """

    search: sweep.Result
    runs: sweep.Result
    rates: np.ndarray
    at_edge: np.ndarray


def make_problem(data: datasets.Dataset, hidden: Sequence[int]) -> Problem:
    """Return the problem; a fifth of the training examples, stratified by class, is held out for validation."""
    kept, held = datasets.stratified_split(np.asarray(data.train.targets), len(data.train.targets) // 5)
    train, validation = (datasets.Examples(*(a[rows] for a in data.train)) for rows in (kept, held))
    classes = int(np.max(np.asarray(data.train.targets))) + 1
    return Problem(train, validation, data.test, (data.train.inputs.shape[1], *hidden, classes))


def per_example(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the cross-entropy of each example."""
    return losses.cross_entropy(mlp.forward(params, inputs, activation=ACTIVATION), targets)


def mean_loss(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return losses.mean(per_example(params, inputs, targets))


def batch_loss(params: Any, inputs: jax.Array, targets: jax.Array, weights: jax.Array, key: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of a batch."""
    return losses.mean(per_example(params, inputs, targets), weights)


@functools.cache
def starts(sizes: tuple[int, ...]) -> Callable[[jax.Array], Any]:
    """Return key -> params; the same function for the same sizes, so that programs are compiled once."""
    return functools.partial(mlp.init, sizes=sizes)


def scores(train: Any, validation: Any, test: Any, state: training.State) -> dict[str, jax.Array]:
    """Return losses and accuracies of a state on all three parts: the record of every run."""
    kept = {}
    for name, (inputs, targets) in {"train": train, "validation": validation, "test": test}.items():
        logits = mlp.forward(state.params, inputs, activation=ACTIVATION)
        kept[f"{name}_loss"] = losses.mean(losses.cross_entropy(logits, targets))
        kept[f"{name}_accuracy"] = losses.mean(losses.accuracy(logits, targets))
    return kept


def validation_accuracy(inputs: jax.Array, targets: jax.Array, state: training.State) -> jax.Array:
    """Return the validation accuracy, in which targets are set; cheap enough to record often."""
    return losses.mean(losses.accuracy(mlp.forward(state.params, inputs, activation=ACTIVATION), targets))


def noise(inputs: jax.Array, targets: jax.Array, state: training.State) -> gradient_noise.Noise:
    """Return the exact gradient noise on the training examples."""
    return gradient_noise.exact(per_example, state.params, (inputs, targets), chunk_size=64)


Runner = Callable[..., sweep.Result]


def runner(key: jax.Array, problem: Problem, batch_sizes: Sequence[int], bar: tqdm.tqdm) -> Runner:
    """Return `sweep.run` with the arguments that all sweeps here share; it reports its progress on the bar."""

    def progress(done: int, of: int) -> None:
        bar.set_postfix_str(f"sweep {done}/{of}")

    return functools.partial(
        sweep.run, key, batch_loss, starts(problem.sizes), problem.train, batch_sizes=batch_sizes, optimizer=optax.sgd,
        progress=progress, mesh=all_devices.mesh(),
    )  # fmt: skip


def tune(
    run: Runner, problem: Problem, rates: Sequence[float], seeds: int, fresh: Sequence[int], budget: dict[str, Any],
    records: int,
) -> Tuned:  # fmt: skip
    """Choose the learning rate of each batch size by the mean final validation loss, then run it from fresh seeds."""
    settings = {"record": jax.tree_util.Partial(scores, *problem[:3]), "records": records, **budget}
    search = run(learning_rates=rates, seeds=seeds, **settings)
    final = np.where(search.diverged_at > 0, np.inf, search.record["validation_loss"][..., -1]).mean(-1)
    return _winners(run, search, np.asarray(rates), final, fresh, settings)


def _winners(
    run: Runner, search: sweep.Result, rates: np.ndarray, cost: np.ndarray, fresh: Sequence[int], settings: dict
) -> Tuned:
    """Run the rate of least `cost` (batch sizes, rates) for each batch size from fresh seeds."""
    best = np.argmin(cost, axis=1)
    sizes = search.coordinates["batch_size"].tolist()
    chosen = {size: (float(rates[i]),) for size, i in zip(sizes, best, strict=True)}
    runs = run(learning_rates=chosen, seeds=fresh, **settings)
    return Tuned(search, runs, rates[best], (best == 0) | (best == len(rates) - 1))


def tune_updates_to_target(
    run: Runner, problem: Problem, rates: Sequence[float], seeds: int, fresh: Sequence[int], updates: int,
    target: float, records: int,
) -> tuple[Tuned, np.ndarray, np.ndarray]:  # fmt: skip
    """Choose the rate with the fewest updates to a validation accuracy, then run it from fresh seeds.

    Also return the updates to the target, or all updates made if it was not reached, and whether it was reached; both
    (batch sizes, seeds).
    """
    record = jax.tree_util.Partial(validation_accuracy, *problem.validation)
    settings = {"record": record, "records": records, "updates": updates}
    search = run(learning_rates=rates, seeds=seeds, **settings)
    needed, _ = _first_at(search, target)
    tuned = _winners(run, search, np.asarray(rates), needed.mean(-1), fresh, settings)
    taken, reached = _first_at(tuned.runs, target)
    return tuned, taken[:, 0], reached[:, 0]


def _first_at(result: sweep.Result, target: float) -> tuple[np.ndarray, np.ndarray]:
    above = (result.record >= target) & (result.diverged_at == 0)[..., None]
    reached = above.any(-1)
    row = np.where(reached, above.argmax(-1), above.shape[-1] - 1)
    made = np.broadcast_to(result.updates[:, None, None, :], above.shape)
    return np.take_along_axis(made, row[..., None], -1)[..., 0], reached


class Times(NamedTuple):
    """Seconds of one update, example by example and as a batch, and the updates of an epoch; each (batch sizes,)."""

    sequential: np.ndarray
    parallel: np.ndarray
    updates_per_epoch: np.ndarray


def one_by_one(params: Any, inputs: jax.Array, targets: jax.Array, weights: jax.Array, key: jax.Array) -> jax.Array:
    """Return the loss of a batch, computed one example after another."""
    values = jax.lax.map(lambda example: per_example(params, *(a[None] for a in example))[0], (inputs, targets))
    return losses.mean(values, weights)


def measure_times(key: jax.Array, problem: Problem, batch_sizes: Sequence[int], rounds: int, bar: tqdm.tqdm) -> Times:
    """Time whole runs of `training.train`, interleaved; the fastest of several rounds counts."""
    params = jax.jit(starts(problem.sizes))(key)
    optimizer, n = optax.sgd(0.1), len(problem.train.inputs)
    best = np.full((2, len(batch_sizes)), np.inf)
    epochs = max(1, 6000 // n)
    for number in range(rounds + 1):
        for row, loss in enumerate((one_by_one, batch_loss)):
            for column, size in enumerate(batch_sizes):
                settings = {"optimizer": optimizer, "batch_size": size, "epochs": epochs}
                began = time.perf_counter()
                jax.block_until_ready(training.train(key, loss, params, problem.train, **settings))
                seconds = time.perf_counter() - began
                if number:  # the first call compiles
                    best[row, column] = min(best[row, column], seconds)
        bar.set_postfix_str(f"timing {number}/{rounds}")
    per_epoch = np.array([-(-n // size) for size in batch_sizes])
    sequential, parallel = best / (epochs * per_epoch)
    return Times(sequential, parallel, per_epoch)


def correct(problem: Problem, params: Any) -> np.ndarray:
    """Return 1 for each test example that a network classifies correctly, else 0: (*axes, test examples)."""
    axes = jax.tree.leaves(params)[-1].ndim - 1
    flat = jax.tree.map(lambda a: jnp.asarray(a.reshape(-1, *a.shape[axes:])), params)
    values = _correct(flat, *problem.test)
    return np.asarray(values).reshape(*jax.tree.leaves(params)[-1].shape[:axes], -1)


@jax.jit
def _correct(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jax.vmap(lambda p: losses.accuracy(mlp.forward(p, inputs, activation=ACTIVATION), targets))(params)
