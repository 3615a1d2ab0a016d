"""What the comparison of batch sizes measures: tuning, fresh seeds, time and noise. No tables, no figures."""

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
    """One budget: the search on validation, and the winners from fresh seeds.

    search, runs
        Sweeps with axes (batch_size, learning_rate, seed); one rate in `runs`.
    rates
        (batch sizes,) chosen.
    at_edge
        (batch sizes,) whether the chosen rate is the smallest or largest of the search.
    """

    search: sweep.Result
    runs: sweep.Result
    rates: np.ndarray
    at_edge: np.ndarray


def make_problem(data: datasets.Dataset, hidden: Sequence[int]) -> Problem:
    """Return the problem: a fifth of the training examples, in equal proportions of classes, to validate on."""
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


def scores(problem: Problem, state: training.State) -> dict[str, jax.Array]:
    """Return losses and accuracies of a state on all three parts: what every run keeps."""
    kept = {}
    for name, (inputs, targets) in zip(("train", "validation", "test"), problem[:3], strict=True):
        logits = mlp.forward(state.params, inputs, activation=ACTIVATION)
        kept[f"{name}_loss"] = losses.mean(losses.cross_entropy(logits, targets))
        kept[f"{name}_accuracy"] = losses.mean(losses.accuracy(logits, targets))
    return kept


def validation_accuracy(inputs: jax.Array, targets: jax.Array, state: training.State) -> jax.Array:
    """Return the accuracy that targets are set in: cheap enough to look at often."""
    return losses.mean(losses.accuracy(mlp.forward(state.params, inputs, activation=ACTIVATION), targets))


def noise(inputs: jax.Array, targets: jax.Array, state: training.State) -> gradient_noise.Noise:
    """Return the exact gradient noise on the training examples."""
    return gradient_noise.exact(per_example, state.params, (inputs, targets), chunk_size=64)


Runner = Callable[..., sweep.Result]


def runner(key: jax.Array, problem: Problem, batch_sizes: Sequence[int], bar: tqdm.tqdm) -> Runner:
    """Return `sweep.run` with what every sweep here has in common; its calls count on the bar."""

    def run(**settings: Any) -> sweep.Result:
        def progress(done: int, of: int) -> None:
            bar.set_postfix_str(f"sweep {done}/{of}")

        return sweep.run(
            key, batch_loss, starts(problem.sizes), problem.train, batch_sizes=batch_sizes, optimizer=optax.sgd,
            progress=progress, mesh=all_devices.mesh(), **settings,
        )  # fmt: skip

    return run


def tune(
    run: Runner,
    problem: Problem,
    rates: Sequence[float],
    seeds: int,
    fresh: Sequence[int],
    budget: dict[str, Any],
    records: int,
) -> Tuned:
    """Search the learning rate of each batch size by the mean validation loss at the end, then run the winners."""
    # Six numbers a record: the three parts of the data as one, so that a record is one pass.
    record = jax.tree_util.Partial(_scores, *problem[:3])
    search = run(learning_rates=rates, seeds=seeds, record=record, records=records, **budget)
    final = np.where(search.diverged_at > 0, np.inf, search.record["validation_loss"][..., -1]).mean(-1)
    return _winners(run, search, np.asarray(rates), final, fresh, {"record": record, "records": records, **budget})


def _scores(train: Any, validation: Any, test: Any, state: training.State) -> dict[str, jax.Array]:
    return scores(Problem(train, validation, test, ()), state)


def _winners(
    run: Runner, search: sweep.Result, rates: np.ndarray, worse: np.ndarray, fresh: Sequence[int], settings: dict
) -> Tuned:
    """Run the rate that is least `worse` (batch sizes, rates) for each batch size from fresh seeds."""
    best = np.argmin(worse, axis=1)
    sizes = search.coordinates["batch_size"].tolist()
    chosen = {size: (float(rates[i]),) for size, i in zip(sizes, best, strict=True)}
    runs = run(learning_rates=chosen, seeds=fresh, **settings)
    return Tuned(search, runs, rates[best], (best == 0) | (best == len(rates) - 1))


def tune_updates_to_target(
    run: Runner,
    problem: Problem,
    rates: Sequence[float],
    seeds: int,
    fresh: Sequence[int],
    updates: int,
    target: float,
    records: int,
) -> tuple[Tuned, np.ndarray, np.ndarray]:
    """Search the rate with the fewest updates to a validation accuracy, then run the winners from fresh seeds.

    Returns
    -------
    (Tuned, updates (batch sizes, seeds), reached (batch sizes, seeds)): updates made where it was not reached.
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
    """(batch sizes,) seconds of one update: example by example, and in the batch; with updates of an epoch."""

    sequential: np.ndarray
    parallel: np.ndarray
    updates_per_epoch: np.ndarray


def one_by_one(params: Any, inputs: jax.Array, targets: jax.Array, weights: jax.Array, key: jax.Array) -> jax.Array:
    """Return the loss of a batch, one example after another."""
    values = jax.lax.map(lambda example: per_example(params, *(a[None] for a in example))[0], (inputs, targets))
    return losses.mean(values, weights)


def measure_times(key: jax.Array, problem: Problem, batch_sizes: Sequence[int], rounds: int, bar: tqdm.tqdm) -> Times:
    """Time whole runs of training.train, in turn, the fastest of some rounds."""
    params = jax.jit(starts(problem.sizes))(key)
    optimizer, n = optax.sgd(0.1), len(problem.train.inputs)
    best = np.full((2, len(batch_sizes)), np.inf)
    epochs = max(1, 6000 // n)
    for number in range(rounds + 1):
        for row, loss in enumerate((one_by_one, batch_loss)):
            for column, size in enumerate(batch_sizes):
                # The first call compiles.
                began = time.perf_counter()
                jax.block_until_ready(
                    training.train(
                        key, loss, params, problem.train, optimizer=optimizer, batch_size=size, epochs=epochs
                    )
                )
                seconds = time.perf_counter() - began
                if number:
                    best[row, column] = min(best[row, column], seconds)
        bar.set_postfix_str(f"timing {number}/{rounds}")
    per_epoch = np.array([-(-n // size) for size in batch_sizes])
    sequential, parallel = best / (epochs * per_epoch)
    return Times(sequential, parallel, per_epoch)


def correct(problem: Problem, params: Any) -> np.ndarray:
    """Return which test examples each network gets right: (*axes, test examples) of 0 and 1."""
    axes = jax.tree.leaves(params)[-1].ndim - 1
    flat = jax.tree.map(lambda a: jnp.asarray(a.reshape(-1, *a.shape[axes:])), params)
    values = _correct(flat, *problem.test)
    return np.asarray(values).reshape(*jax.tree.leaves(params)[-1].shape[:axes], -1)


@jax.jit
def _correct(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jax.vmap(lambda p: losses.accuracy(mlp.forward(p, inputs, activation=ACTIVATION), targets))(params)
