"""Does mlp_jax train the classical numpy sigmoid network to the same parameters, and how much faster?

The classical `Network` (`_shared/numpy_network.py`) has sigmoid layers, a quadratic cost, standard normal initial
parameters, and plain SGD over shuffled mini-batches. The same run in mlp_jax is one compiled scan from the same start,
over the same order of examples, so the two must agree to rounding. Published settings (mini-batch 10, 30 epochs,
learning rates that are good, too slow and too fast) are run in both.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pandas as pd
import tqdm

from experiments._shared import command_line, sigmoid_sgd, tables
from experiments._shared.finite_hypotheses import proportion_interval
from experiments._shared.numpy_network import ExampleByExample, Network
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import datasets, plots

_FIRST, _LATER = "mlp_jax, first call (compiles)", "mlp_jax, later calls"
_NUMPY, _SINGLE = "numpy, a mini-batch at a time", "numpy, an example at a time"


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    data: str = "mnist5000"
    """Name of a data set (mnist5000, digits), or a path: a folder of MNIST IDX files, or an .npz file."""
    epochs: int = 30
    """Epochs of every run."""
    batch_size: int = 10
    """Examples an update."""
    updates: int = 50
    """Updates over which the two trajectories are compared."""
    seeds: int = 5
    """Runs of each setting in mlp_jax, to see how much the start matters; numpy runs the first seed."""
    repeats: int = 3
    """Timed runs of each implementation, alternating; the median is reported."""


class Case(NamedTuple):
    """One setting, with its published accuracy on full MNIST."""

    name: str
    hidden: int
    rate: float
    published: float


# Nielsen (2015), "Neural Networks and Deep Learning", chapter 1: full MNIST, 50,000 training and 10,000 test examples,
# the best epoch of the best of three runs; for the slow and the fast rate the last epoch.
CASES = (
    Case("published", 30, 3.0, 95.42),
    Case("more units", 100, 3.0, 96.59),
    Case("too slow", 100, 0.001, 21.42),
    Case("too fast", 30, 100.0, 9.8),
)


def largest_differences(network: Network, data: Any, rate: float, batch_size: int, updates: int) -> np.ndarray:
    """Return max |θ_numpy − θ_jax| after every update of part of an epoch; this trains the network."""
    (inputs, labels), differences = data, []
    order = network.rng.permutation(len(labels))[: min(updates, len(labels) // batch_size) * batch_size]
    arrays, orders = jax.tree.map(jnp.asarray, (data, data)), order.reshape(-1, batch_size)
    params, step = sigmoid_sgd.as_params(network), jnp.asarray(rate)
    _, (_, theirs) = sigmoid_sgd.train(params, *arrays, jnp.asarray(orders), step, batch_size, keep=True)
    for number, rows in enumerate(orders):
        network.update_mini_batch(inputs[rows], np.eye(network.sizes[-1])[labels[rows]], rate)
        after = jax.tree.map(operator.itemgetter(number), theirs)
        differences.append(sigmoid_sgd.distance(sigmoid_sgd.as_params(network), after))
    return np.array(differences)


def load(data: str, dtype: Any = np.float32) -> Any:
    """Return a data set by name, or from a folder of IDX files or an .npz file, as numpy arrays."""
    path = pathlib.Path(data)
    if path.is_dir():
        found = datasets.load_folder(path)
    else:
        found = datasets.load_npz(path) if path.suffix == ".npz" else datasets.load(data)
    return jax.tree.map(lambda a: np.asarray(a, dtype if a.dtype.kind == "f" else None), found)


def new_network(case: Case, data: Any, seed: int, kind: type[Network] = Network) -> Network:
    """Return an untrained network with the sizes of the case and the data, and the dtype of the data."""
    sizes = (data.train.inputs.shape[1], case.hidden, int(data.train.targets.max()) + 1)
    return kind(sizes, np.random.default_rng(seed), data.train.inputs.dtype)


def measure(case: Case, data: Any, settings: Settings, report: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run one case in both implementations; return one row for each run and epoch, and the row of the summary."""
    total, size, rate = len(data.test.targets), settings.batch_size, jnp.asarray(case.rate)
    network = new_network(case, data, settings.seed)
    ours = network.train(
        data.train, epochs=settings.epochs, batch_size=size, rate=case.rate, test=data.test, report=report
    )
    arrays, ends = jax.tree.map(jnp.asarray, data), []
    theirs: list[Any] = []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        params, orders = sigmoid_sgd.start(new_network(case, data, seed), len(data.train.targets), settings.epochs)
        params, (correct, _) = sigmoid_sgd.train(params, *arrays, orders, rate, size)
        theirs.append(np.asarray(correct))
        ends.append(params)
    rows = [
        (case.name, case.hidden, case.rate, name, settings.seed + number, epoch, int(right), total)
        for name, number, run in [("numpy", 0, ours), *(("mlp_jax", k, run) for k, run in enumerate(theirs))]
        for epoch, right in enumerate(run)
    ]
    columns = ["case", "hidden", "rate", "implementation", "seed", "epoch", "correct", "total"]
    interval, last = proportion_interval(ours[-1], total), 100 * np.array(theirs)[:, -1] / total
    answers = np.argmax(network.forward(data.test.inputs), axis=1)
    summary = {
        **case._asdict(),
        "numpy": 100 * ours[-1] / total,
        "95 % from": 100 * interval[0],
        "to": 100 * interval[1],
        "mlp_jax": float(last[0]),
        "silent classes": network.sizes[-1] - len(np.unique(answers)),
        "gap (examples)": int(np.max(np.abs(np.array(ours) - theirs[0]))),
        "gap (parameters)": sigmoid_sgd.distance(sigmoid_sgd.as_params(network), ends[0]),
        "seeds": len(last),
        "lowest": float(last.min()),
        "median": float(np.median(last)),
        "highest": float(last.max()),
    }
    return pd.DataFrame(rows, columns=columns), summary


def time_runs(settings: Settings, dtype: Any) -> pd.DataFrame:
    """Time whole runs of the first case in both implementations, alternating in this process.

    Every run evaluates the test examples after each epoch. The example-by-example network runs one epoch.
    """
    case, data, size, epochs = CASES[0], load(settings.data, dtype), settings.batch_size, settings.epochs
    arrays, rows = jax.tree.map(jnp.asarray, data), []
    params, orders = sigmoid_sgd.start(new_network(case, data, settings.seed), len(data.train.targets), epochs)

    def in_jax(name: str) -> None:
        began = time.perf_counter()
        jax.block_until_ready(sigmoid_sgd.train(params, *arrays, orders, jnp.asarray(case.rate, dtype), size))
        rows.append((name, (time.perf_counter() - began) / epochs))

    def in_numpy(name: str, kind: type[Network], epochs: int) -> None:
        network = new_network(case, data, settings.seed, kind)
        began = time.perf_counter()
        network.train(data.train, epochs=epochs, batch_size=size, rate=case.rate, test=data.test, report=_silent)
        rows.append((name, (time.perf_counter() - began) / epochs))

    jax.clear_caches()
    in_jax(_FIRST)
    for _ in range(settings.repeats):
        in_jax(_LATER)
        in_numpy(_NUMPY, Network, epochs)
    in_numpy(_SINGLE, ExampleByExample, 1)
    return pd.DataFrame(rows, columns=["implementation", "seconds an epoch"]).assign(dtype=jnp.dtype(dtype).name)


def _silent(message: str) -> None:
    del message


def draw(rows: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure, test accuracy against epoch: numpy as lines, mlp_jax as markers, other seeds as thin lines."""
    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    looks = zip((plots.BLUE, plots.GREEN, plots.YELLOW, plots.PURPLE), "os^D", ("-", "--", "-.", ":"), strict=True)
    rows = rows.assign(percent=100 * rows.correct / rows.total)
    for (_, part), (colour, marker, line) in zip(rows.groupby("case", sort=False), looks, strict=True):
        label = f"η = {part.rate.iloc[0]:g}, {part.hidden.iloc[0]} hidden units"
        for (implementation, seed), run in part.groupby(["implementation", "seed"]):
            if implementation == "numpy":
                axes.plot(run.epoch, run.percent, line, color=colour, label=f"{label}: numpy")
            elif seed == part.seed.min():
                axes.plot(run.epoch, run.percent, marker, color=colour, mfc="none", label=f"{label}: mlp_jax")
            else:
                axes.plot(run.epoch, run.percent, line, color=colour, lw=0.8, alpha=0.8)
    axes.set(xlabel="epoch", ylabel="accuracy (% of the test examples)", ylim=(0, 100))
    axes.set_title("both implementations from the first seed; thin: mlp_jax from other seeds", fontsize="medium")
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.02, 0.5))
    axes.grid(alpha=0.3)
    return figure


def conclusion(differences: np.ndarray, first: pd.Series, times: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers; `first` is the row of the first case."""
    batches, single = (times.loc[name] / times.loc[_LATER] for name in (_NUMPY, _SINGLE))
    return (
        f"Found: the two are at most {differences.max():.1e} apart in any parameter over the first {len(differences)}"
        f" updates; in the published setting they differ by at most {first['gap (examples)']} test examples after any"
        f" epoch, and {first['lowest']:.1f} to {first['highest']:.1f} % are correct from {first['seeds']} starts"
        f" (published: {first['published']:g} %, on full MNIST); mlp_jax, once compiled, is {batches['float64']:.2g}"
        f" (float64) and {batches['float32']:.2g} (float32) times as fast as numpy by mini-batches, and"
        f" {single['float64']:.2g} times as fast as numpy example by example (float64)."
    )


def run(settings: Settings) -> None:
    """Compare, time, print and save."""
    folder = RunFolder("classical_network", settings, settings.output, resume=settings.resume)
    if settings.quick:
        settings = dataclasses.replace(settings, epochs=3, seeds=2, repeats=1)
    with jax.enable_x64(True), tqdm.tqdm(total=2 + len(CASES), unit="step", leave=False, disable=None) as bar:
        data, first = load(settings.data, np.float64), CASES[0]
        network, size = new_network(first, data, settings.seed), settings.batch_size
        differ = functools.partial(largest_differences, network, data.train, first.rate, size, settings.updates)
        differences, timed, found = folder.kept("differences", differ), [], []
        for dtype in (np.float64, np.float32):
            timed.append(folder.kept(f"seconds_{dtype.__name__}", functools.partial(time_runs, settings, dtype)))
            bar.update()
        for number, case in enumerate(CASES):
            both = functools.partial(measure, case, data, settings, _silent if number else bar.write)
            found.append(folder.kept(f"case_{number}", both))
            bar.update()
    rows, summary = zip(*found, strict=True)
    accuracy, seconds = pd.concat(rows), pd.concat(timed)
    table = pd.DataFrame(summary).rename(columns={"name": "case"})
    folder.table("trajectory", pd.DataFrame({"update": np.arange(len(differences)) + 1, "difference": differences}))
    for name, frame in (("accuracy", accuracy), ("summary", table), ("seconds", seconds)):
        folder.table(name, frame)
    folder.figure("accuracy", draw(accuracy))
    print("\nTest accuracy after the last epoch in percent (published: full MNIST; numpy and mlp_jax: the first seed):")
    shown = ["case", "hidden", "rate", "published", "numpy", "mlp_jax", "gap (examples)", "lowest", "median", "highest"]
    print(tables.text(table[shown], "summary"))
    times = seconds.groupby(["implementation", "dtype"])["seconds an epoch"].median().unstack()
    folder.conclude(conclusion(differences, table.iloc[0], times))


if __name__ == "__main__":
    command_line.start("classical_network", run, Settings, __doc__)
