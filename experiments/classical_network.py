"""Is the classical sigmoid network, written out in numpy, the same network as mlp_jax's, and how much slower?

The classical `Network` has sigmoid layers, a quadratic cost, standard normal starts, and plain SGD over
shuffled mini-batches; it is written here in numpy with its backpropagation by hand. The same run in mlp_jax
is one compiled scan: same start, same order of examples, so the two must agree to rounding. Published settings
(mini-batch 10, 30 epochs, learning rates that suit, crawl and saturate) are then run in both, side by side.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import pandas as pd
import scipy.stats
import tqdm

from experiments._shared import command_line
from experiments._shared.run_folder import RunFolder
from mlp_jax import datasets, losses, mlp, plots

Gradients = tuple[list[np.ndarray], list[np.ndarray]]


# The classical network, in numpy.


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(−z)), accurate at both ends and without overflow.

    Examples
    --------
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    decay = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, decay) / (1.0 + decay)


class Network:
    """A multilayer network of sigmoid units with a quadratic cost, trained by mini-batch SGD.

    zₗ = aₗ₋₁ Wₗ + bₗ, aₗ = σ(zₗ) on every layer, the output included; C = ½ Σ (a_L − y)² for each example.
    A subclass may override `activation` with `activation_derivative`, and `cost_derivative`.

    Parameters
    ----------
    sizes
        Input size, hidden sizes, number of classes: `(784, 30, 10)`.
    rng
        Draws the start, weights and biases from N(0, 1), and then the order of each epoch.
    dtype
        Of weights and biases; give the inputs the same.

    Attributes
    ----------
    weights, biases
        Lists of (in, out) and (out,) arrays, one a layer.

    References
    ----------
    Rumelhart, Hinton & Williams (1986), "Learning representations by back-propagating errors".

    Examples
    --------
    >>> xor = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([0, 1, 1, 0])
    >>> network = Network((2, 4, 2), np.random.default_rng(0))
    >>> correct = network.train(xor, epochs=2, batch_size=3, rate=1.0, test=xor)
    Epoch 0: 2 / 4
    Epoch 1: 2 / 4
    """

    def __init__(self, sizes: Sequence[int], rng: np.random.Generator, dtype: Any = np.float64) -> None:
        self.sizes, self.rng = tuple(sizes), rng
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes: got {self.sizes}, expected at least two integers of 1 or more.")
        shapes = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        self.weights = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        self.biases = [rng.standard_normal(width).astype(dtype) for _, width in shapes]

    def activation(self, z: np.ndarray) -> np.ndarray:
        """Return σ(z), elementwise."""
        return sigmoid(z)

    def activation_derivative(self, z: np.ndarray) -> np.ndarray:
        """Return σ'(z) = σ(z) (1 − σ(z)), elementwise."""
        value = sigmoid(z)
        return value * (1.0 - value)

    def cost_derivative(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return ∂C/∂a_L = a_L − y of each example, (n, classes)."""
        return outputs - targets

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs (n, classes) for inputs (n, d)."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            inputs = self.activation(inputs @ weight + bias)
        return inputs

    def backpropagation(self, inputs: np.ndarray, targets: np.ndarray) -> Gradients:
        """Return the gradients of the summed cost with respect to weights and biases.

        δ_L = ∂C/∂a_L ⊙ σ'(z_L); δₗ = (δₗ₊₁ Wₗ₊₁ᵀ) ⊙ σ'(zₗ); ∂C/∂Wₗ = aₗ₋₁ᵀ δₗ; ∂C/∂bₗ = Σ δₗ over examples.

        Parameters
        ----------
        inputs, targets
            (n, d) and (n, classes).
        """
        activations, sums = [inputs], []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            sums.append(activations[-1] @ weight + bias)
            activations.append(self.activation(sums[-1]))
        delta = self.cost_derivative(activations[-1], targets) * self.activation_derivative(sums[-1])
        weight_gradients, bias_gradients = [], []
        for layer in reversed(range(len(sums))):
            weight_gradients.append(activations[layer].T @ delta)
            bias_gradients.append(delta.sum(axis=0))
            if layer:
                delta = (delta @ self.weights[layer].T) * self.activation_derivative(sums[layer - 1])
        return weight_gradients[::-1], bias_gradients[::-1]

    def update_mini_batch(self, inputs: np.ndarray, targets: np.ndarray, rate: float) -> None:
        """Step down the mean gradient of the batch: divided by the number of examples that it really has."""
        step = rate / len(inputs)
        weight_gradients, bias_gradients = self.backpropagation(inputs, targets)
        self.weights = [w - step * g for w, g in zip(self.weights, weight_gradients, strict=True)]
        self.biases = [b - step * g for b, g in zip(self.biases, bias_gradients, strict=True)]

    def evaluate(self, data: tuple[Any, Any]) -> int:
        """Return how many of the examples (inputs (n, d), class numbers (n,)) have their largest output right."""
        inputs, labels = data
        return int(np.sum(np.argmax(self.forward(inputs), axis=1) == labels))

    def train(
        self,
        data: tuple[Any, Any],
        *,
        epochs: int,
        batch_size: int,
        rate: float,
        test: tuple[Any, Any] | None = None,
        report: Callable[[str], None] = print,
    ) -> list[int]:
        """Train by mini-batches in a new order each epoch, with one line an epoch for `report`.

        Parameters
        ----------
        data
            (inputs (n, d), class numbers (n,)).
        epochs, batch_size, rate
            How long, how many examples an update (the last batch of an epoch may be shorter), how far.
        test
            Examples to count after every epoch.
        report
            Takes "Epoch j: correct / total" with test examples, "Epoch j complete" without.

        Returns
        -------
        Correct test examples after each epoch; empty without `test`.
        """
        inputs, labels = (np.asarray(a) for a in data)
        targets = np.eye(self.sizes[-1], dtype=inputs.dtype)[labels]
        correct = []
        for epoch in range(epochs):
            for rows in batches(self.rng.permutation(len(inputs)), batch_size):
                self.update_mini_batch(inputs[rows], targets[rows], rate)
            if test is None:
                report(f"Epoch {epoch} complete")
            else:
                correct.append(self.evaluate(test))
                report(f"Epoch {epoch}: {correct[-1]} / {len(test[1])}")
        return correct


class ExampleByExample(Network):
    """The same network with the gradient of a batch summed one example at a time, as it is often taught."""

    def backpropagation(self, inputs: np.ndarray, targets: np.ndarray) -> Gradients:
        """Return the gradients of the summed cost, one backward pass an example."""
        one = super().backpropagation
        each = [one(x[None], y[None]) for x, y in zip(inputs, targets, strict=True)]
        weights, biases = zip(*each, strict=True)
        return [sum(layer) for layer in zip(*weights, strict=True)], [sum(layer) for layer in zip(*biases, strict=True)]


def batches(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, in order; the last may be shorter.

    Examples
    --------
    >>> [rows.tolist() for rows in batches(np.array([3, 1, 2, 0, 4]), 2)]
    [[3, 1], [2, 0], [4]]
    """
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))


# The same network in mlp_jax.


def as_params(network: Network) -> mlp.Params:
    """Return the weights and biases of a `Network` as parameters of `mlp.forward`."""
    pairs = zip(network.weights, network.biases, strict=True)
    return tuple(mlp.Layer(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in pairs)


def start(network: Network, num_examples: int, epochs: int) -> tuple[mlp.Params, jax.Array]:
    """Return what a new `Network` starts from, and the orders (epochs, n) it would train in; draws from its rng."""
    orders = [network.rng.permutation(num_examples) for _ in range(epochs)]
    return as_params(network), jnp.asarray(np.stack(orders))


def quadratic_loss(params: mlp.Params, inputs: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the mean over a batch of ½ Σ (σ(z_L) − y)², every layer a sigmoid. Transformable."""
    outputs = jax.nn.sigmoid(mlp.forward(params, inputs, activation=jax.nn.sigmoid))
    return losses.mean(losses.squared_error(outputs, targets), weights)


def train(
    params: mlp.Params,
    data: tuple[jax.Array, jax.Array],
    test: tuple[jax.Array, jax.Array],
    orders: jax.Array,
    rate: jax.Array,
    batch_size: int,
) -> tuple[mlp.Params, jax.Array]:
    """Return the parameters after SGD over the given orders, and the test examples right after each epoch.

    The whole run is one scan; compile it with `jax.jit(train, static_argnames="batch_size")`. Transformable.

    Parameters
    ----------
    params
        Where to start.
    data, test
        (inputs (n, d), class numbers (n,)).
    orders
        (epochs, n) rows of data in the order in which each epoch takes them.
    rate
        Learning rate: an array, so that another one compiles nothing.
    batch_size
        Examples an update; the last batch of an epoch may be shorter.
    """

    def epoch(params: mlp.Params, order: jax.Array) -> tuple[mlp.Params, jax.Array]:
        params, _ = jax.lax.scan(functools.partial(_update, rate), params, _cut(params, data, order, batch_size))
        logits = mlp.forward(params, test[0], activation=jax.nn.sigmoid)
        return params, jnp.sum(losses.accuracy(logits, test[1].astype(int))).astype(int)

    return jax.lax.scan(epoch, params, orders)


def trajectory(
    params: mlp.Params, data: tuple[jax.Array, jax.Array], order: jax.Array, rate: jax.Array, batch_size: int
) -> mlp.Params:
    """Return the parameters after every update of one pass over `order`, with a leading axis. Transformable."""

    def update(params: mlp.Params, batch: tuple[jax.Array, ...]) -> tuple[mlp.Params, mlp.Params]:
        params, _ = _update(rate, params, batch)
        return params, params

    return jax.lax.scan(update, params, _cut(params, data, order, batch_size))[1]


def _update(rate: jax.Array, params: mlp.Params, batch: tuple[jax.Array, ...]) -> tuple[mlp.Params, None]:
    gradient = jax.grad(quadratic_loss)(params, *batch)
    return jax.tree.map(lambda p, g: p - rate * g, params, gradient), None


def _cut(
    params: mlp.Params, data: tuple[jax.Array, jax.Array], order: jax.Array, batch_size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return inputs, targets and weights by batch; the last batch is filled up with examples of weight 0."""
    padding = -len(order) % batch_size
    weights = jnp.pad(jnp.ones(len(order), data[0].dtype), (0, padding))
    rows = jnp.pad(order, (0, padding))
    targets = jax.nn.one_hot(data[1][rows], len(params[-1].bias), dtype=data[0].dtype)
    inputs, targets, weights = (a.reshape(-1, batch_size, *a.shape[1:]) for a in (data[0][rows], targets, weights))
    return inputs, targets, weights


def largest_differences(
    network: Network, data: tuple[Any, Any], rate: float, batch_size: int, order: np.ndarray
) -> np.ndarray:
    """Return max |θ_numpy − θ_jax| after every update of one pass over `order`; trains the network. Host-level."""
    arrays = tuple(jnp.asarray(a) for a in data)
    compiled = jax.jit(trajectory, static_argnames="batch_size")
    theirs = compiled(as_params(network), arrays, jnp.asarray(order), jnp.asarray(rate), batch_size=batch_size)
    theirs = jax.tree.map(np.asarray, theirs)
    inputs, labels = (np.asarray(a) for a in data)
    targets, differences = np.eye(network.sizes[-1])[labels], []
    for number, rows in enumerate(batches(order, batch_size)):
        network.update_mini_batch(inputs[rows], targets[rows], rate)
        differences.append(distance(as_params(network), jax.tree.map(operator.itemgetter(number), theirs)))
    return np.array(differences)


def distance(a: mlp.Params, b: mlp.Params) -> float:
    """Return the largest difference in size between two sets of parameters."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in pairs)


# The experiment.


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to run."""

    data: str = "mnist5000"
    """Name of a data set (mnist5000, digits), or a path: a folder of MNIST IDX files, or an .npz file."""
    epochs: int = 30
    """Epochs of every run."""
    batch_size: int = 10
    """Examples an update."""
    updates: int = 50
    """Updates over which the two trajectories are compared."""
    seed: int = 0
    """Seed of the start and of the orders of the runs that are made in both implementations."""
    seeds: int = 5
    """Runs of each setting in mlp_jax, from this many seeds, to see how much the start matters."""
    repeats: int = 3
    """Timed runs of each implementation, alternating; the median is reported."""
    output: pathlib.Path | None = None
    """Folder for settings, tables and the figure; a new one under runs/ when not given."""
    resume: bool = False
    """Go on with the run that was stopped in the folder of --output."""
    quick: bool = False
    """Three epochs, two seeds and one timed run, to see that everything works."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "updates", "seeds", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 or more.")


class Case(NamedTuple):
    """One setting, with the accuracy published for it on full MNIST."""

    name: str
    hidden: tuple[int, ...]
    rate: float
    published: float


# Published in Nielsen (2015), "Neural Networks and Deep Learning", chapter 1: full MNIST, mini-batch 10, 30 epochs.
CASES = (
    Case("published", (30,), 3.0, 95.42),
    Case("more units", (100,), 3.0, 96.59),
    Case("too slow", (100,), 0.001, 21.42),
    Case("too fast", (30,), 100.0, 9.8),
)


class Result(NamedTuple):
    """One case: test examples right after each epoch, and how far the two ends of the first seed are apart."""

    case: Case
    numpy_correct: np.ndarray
    """(epochs,) from the first seed."""
    jax_correct: np.ndarray
    """(seeds, epochs)."""
    distance: float
    silent: int
    """Classes that the first seed never answers at the end, in numpy."""


def load(data: str) -> datasets.Dataset:
    """Return a data set by name, or from a folder of IDX files or an .npz file."""
    path = pathlib.Path(data)
    if path.is_dir():
        return datasets.load_folder(path)
    return datasets.load_npz(path) if path.suffix == ".npz" else datasets.load(data)


def compare(
    case: Case, data: datasets.Dataset, settings: Settings, report: Callable[[str], None], compiled: Any
) -> Result:
    """Run one case in both implementations from the same start in the same order, then in mlp_jax from others."""
    host = jax.tree.map(np.asarray, data)
    common = {"batch_size": settings.batch_size}
    network = new_network(case, host, settings.seed)
    numpy_correct = network.train(
        host.train, epochs=settings.epochs, rate=case.rate, test=host.test, report=report, **common
    )
    jax_correct, gap = [], 0.0
    for seed in range(settings.seed, settings.seed + settings.seeds):
        params, orders = start(new_network(case, host, seed), len(host.train.targets), settings.epochs)
        params, correct = compiled(params, data.train, data.test, orders, jnp.asarray(case.rate), **common)
        jax_correct.append(np.asarray(correct))
        gap = distance(as_params(network), params) if seed == settings.seed else gap
    answers = np.argmax(network.forward(host.test.inputs), axis=1)
    silent = network.sizes[-1] - len(np.unique(answers))
    return Result(case, np.array(numpy_correct), np.array(jax_correct), gap, silent)


def time_runs(case: Case, data: datasets.Dataset, settings: Settings, dtype: Any) -> pd.DataFrame:
    """Time whole runs of one case in both implementations, alternating in this process. Host-level.

    Every run counts the test examples after each epoch; a run of the example-by-example network is one epoch.
    """
    data = with_dtype(data, dtype)
    host = jax.tree.map(np.asarray, data)
    params, orders = start(new_network(case, host, settings.seed), len(host.train.targets), settings.epochs)
    compiled = jax.jit(train, static_argnames="batch_size")
    arguments = (params, data.train, data.test, orders, jnp.asarray(case.rate, dtype))
    common = {"batch_size": settings.batch_size}

    def in_jax() -> None:
        jax.block_until_ready(compiled(*arguments, **common))

    def in_numpy(kind: type[Network], epochs: int) -> None:
        network = new_network(case, host, settings.seed, kind)
        network.train(host.train, epochs=epochs, rate=case.rate, test=host.test, report=_silent, **common)

    rows = [(_FIRST, seconds(in_jax) / settings.epochs)]
    for _ in range(settings.repeats):
        rows.append((_LATER, seconds(in_jax) / settings.epochs))
        rows.append((_NUMPY, seconds(lambda: in_numpy(Network, settings.epochs)) / settings.epochs))
    rows.append((_SINGLE, seconds(lambda: in_numpy(ExampleByExample, 1))))
    return pd.DataFrame(rows, columns=["implementation", "seconds an epoch"]).assign(dtype=jnp.dtype(dtype).name)


_FIRST, _LATER = "mlp_jax, first call (compiles)", "mlp_jax, later calls"
_NUMPY, _SINGLE = "numpy, a mini-batch at a time", "numpy, an example at a time"


def with_dtype(data: datasets.Dataset, dtype: Any) -> datasets.Dataset:
    """Return the data with floating arrays of the given dtype."""
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, data)


def new_network(case: Case, data: datasets.Dataset, seed: int, kind: type[Network] = Network) -> Network:
    """Return an untrained network of the sizes that the case and the data ask for, in the precision of the data."""
    sizes = (data.train.inputs.shape[1], *case.hidden, int(data.train.targets.max()) + 1)
    return kind(sizes, np.random.default_rng(seed), data.train.inputs.dtype)


def _silent(message: str) -> None:
    del message


def seconds(run: Callable[[], Any]) -> float:
    """Return the wall-clock seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def interval(correct: int, total: int) -> tuple[float, float]:
    """Return the exact 95 % (Clopper–Pearson) interval of a proportion, in percent.

    Examples
    --------
    >>> low, high = interval(900, 1000)
    >>> print(f"{low:.1f} to {high:.1f}")
    88.0 to 91.8
    """
    limits = scipy.stats.binomtest(correct, total).proportion_ci(method="exact")
    return 100 * limits.low, 100 * limits.high


def summary(results: Sequence[Result], total: int) -> pd.DataFrame:
    """Return one row a case: the published figure, and what was measured in percent of the test examples."""
    rows = []
    for case, ours, theirs, gap, silent in results:
        low, high = interval(int(ours[-1]), total)
        last = 100 * theirs[:, -1] / total
        rows.append(
            {
                "case": case.name,
                "hidden": _hidden(case),
                "rate": case.rate,
                "published": case.published,
                "numpy": 100 * ours[-1] / total,
                "95 % from": low,
                "to": high,
                "mlp_jax": last[0],
                "silent classes": silent,
                "gap (examples)": int(np.max(np.abs(ours - theirs[0]))),
                "gap (parameters)": gap,
                "seeds": len(last),
                "lowest": last.min(),
                "median": np.median(last),
                "highest": last.max(),
            }
        )
    return pd.DataFrame(rows)


def by_epoch(results: Sequence[Result], total: int, seed: int) -> pd.DataFrame:
    """Return the tidy table: one row a case, implementation, seed and epoch."""
    rows = [
        (case.name, _hidden(case), case.rate, name, seed + number, epoch, right, total)
        for case, ours, theirs, *_ in results
        for name, runs in (("numpy", ours[None]), ("mlp_jax", theirs))
        for number, counts in enumerate(runs)
        for epoch, right in enumerate(counts)
    ]
    columns = ["case", "hidden", "rate", "implementation", "seed", "epoch", "correct", "total"]
    return pd.DataFrame(rows, columns=columns)


def _hidden(case: Case) -> str:
    return "-".join(str(width) for width in case.hidden)


def plot(results: Sequence[Result], total: int) -> matplotlib.figure.Figure:
    """Draw test accuracy against epoch: numpy as lines, mlp_jax as markers on them, its other seeds as thin lines."""
    figure = matplotlib.figure.Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    looks = zip((plots.BLUE, plots.GREEN, plots.YELLOW, plots.PURPLE), "os^D", ("-", "--", "-.", ":"), strict=True)
    for (case, ours, theirs, *_), (colour, marker, line) in zip(results, looks, strict=True):
        label = f"η = {case.rate:g}, {_hidden(case)} hidden units"
        axes.plot(100 * ours / total, line, color=colour, label=f"{label}: numpy")
        (points,) = axes.plot(100 * theirs[0] / total, marker, color=colour, label=f"{label}: mlp_jax")
        points.set_markerfacecolor("none")
        axes.plot(100 * theirs[1:].T / total, line, color=colour, linewidth=0.8, alpha=0.8)
    axes.set(xlabel="epoch", ylabel=f"accuracy (% of {total} test examples)", ylim=(0, 100))
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.set_title("Both implementations from the first seed; thin: mlp_jax from others", fontsize="medium")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.02, 0.5))
    axes.grid(alpha=0.3)
    return figure


def conclusion(
    differences: np.ndarray, results: Sequence[Result], times: pd.DataFrame, data: datasets.Dataset, epochs: int
) -> str:
    """Return what was found, in one sentence of measured numbers; `times` as `speeds` returns them."""
    total, (_, ours, theirs, _, silent) = len(data.test.targets), results[0]
    last = 100 * theirs[:, -1] / total
    ratios = [f"{_times(times.loc[_NUMPY, name] / times.loc[_LATER, name])} in {name}" for name in times.columns]
    single = _times(times.loc[_SINGLE, "float64"] / times.loc[_LATER, "float64"])
    first = times.loc[_NUMPY, "float64"] / times.loc[_FIRST, "float64"]
    return (
        f"Found: the two are at most {differences.max():.1e} apart in any parameter over the first"
        f" {len(differences)} updates; after {epochs} epochs on {len(data.train.targets)} examples the published"
        f" setting gets {last.min():.1f} to {last.max():.1f} % (median {np.median(last):.1f} %) of {total} test"
        f" examples right from {len(last)} starts: the start moves the count by up to {np.ptp(theirs[:, -1])}"
        f" examples, the implementation by {abs(ours[-1] - theirs[0, -1])}, and the first start never answers {silent}"
        f" of {int(data.train.targets.max()) + 1} classes; in this run mlp_jax, once compiled, is"
        f" {' and '.join(ratios)} than numpy by mini-batches ({single} in float64 than numpy example by example),"
        f" and {_times(first)} on the first call of {epochs} epochs (float64)."
    )


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times faster" if ratio >= 1 else f"{1 / ratio:.1f} times slower"


def speeds(timed: pd.DataFrame) -> pd.DataFrame:
    """Return the median seconds an epoch: one row an implementation, one column a dtype."""
    groups = timed.groupby(["implementation", "dtype"], sort=False)["seconds an epoch"]
    return groups.median().unstack()[["float64", "float32"]].loc[[_SINGLE, _NUMPY, _FIRST, _LATER]]


def run(settings: Settings) -> None:
    """Run the experiment: print the tables, and write them with a figure to a run folder. Host-level."""
    if settings.quick:
        settings = dataclasses.replace(settings, epochs=3, seeds=2, repeats=1)
    folder = RunFolder("classical_network", settings, settings.output, resume=settings.resume)
    steps = 3 + len(CASES)
    with jax.enable_x64(True), tqdm.tqdm(total=steps, unit="step", leave=False, disable=None) as bar:
        data = with_dtype(load(settings.data), float)
        host, case = jax.tree.map(np.asarray, data), CASES[0]
        network = new_network(case, host, settings.seed)
        order = network.rng.permutation(len(host.train.targets))[: settings.updates * settings.batch_size]
        differences = folder.kept(
            "differences",
            lambda: largest_differences(network, host.train, case.rate, settings.batch_size, order),
        )
        bar.update()
        timed = []
        for dtype in (jnp.float64, jnp.float32):
            timed.append(
                folder.kept(f"seconds_{dtype.__name__}", functools.partial(time_runs, case, data, settings, dtype))
            )
            bar.update()
        compiled = jax.jit(train, static_argnames="batch_size")
        results: list[Result] = []
        for case in CASES:
            report = bar.write if case is CASES[0] else _silent
            both = functools.partial(compare, case, data, settings, report, compiled)
            results.append(folder.kept(f"case_{len(results)}", both))
            bar.update()
    write(folder, settings, data, differences, pd.concat(timed), results)


def write(
    folder: RunFolder,
    settings: Settings,
    data: datasets.Dataset,
    differences: np.ndarray,
    timed: pd.DataFrame,
    results: Sequence[Result],
) -> None:
    """Print the tables and the conclusion, and write them to the folder."""
    total, times = len(data.test.targets), speeds(timed)
    table = summary(results, total)
    folder.table("trajectory", pd.DataFrame({"update": np.arange(len(differences)) + 1, "difference": differences}))
    folder.table("accuracy", by_epoch(results, total, settings.seed))
    folder.table("summary", table)
    folder.table("seconds", timed)
    folder.figure("accuracy", plot(results, total))
    print(
        f"\nSeconds an epoch of the published setting, {settings.epochs} epochs a call (median of {settings.repeats};"
    )
    print("first call once, example at a time one epoch), and how many times those of mlp_jax once compiled:")
    ratios = (times / times.loc[_LATER]).rename(columns=lambda name: f"{name}: times")
    print(pd.concat([times, ratios], axis=1).rename_axis(None).rename_axis(None, axis=1).to_string(float_format=_short))
    print("\nPercent of the test examples after the last epoch. Published: full MNIST, 50,000 examples to train and")
    print("10,000 to test, the best epoch of the best of three runs; the slow and fast rows its last epoch.")
    print(f"numpy, mlp_jax, silent classes: seed {settings.seed}, and the largest gap between the two over the epochs")
    print(f"and, in parameters, at the end; lowest, median, highest: mlp_jax over {settings.seeds} seeds:")
    print(table.to_string(index=False, float_format=_short))
    folder.conclude(conclusion(differences, results, times, data, settings.epochs))


def _short(value: float) -> str:
    return f"{value:.4g}"


def main() -> None:
    """Read the settings from the command line, and run."""
    command_line.start("classical_network", run, Settings, __doc__)


if __name__ == "__main__":
    main()
