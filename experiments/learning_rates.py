"""Which learning rates are too small, good and too large, what does theory predict, and do schedules help?

First, full-batch gradient descent on 150 digits at multiples of 2/λ_max, where λ_max is the largest eigenvalue of the
Hessian at each start. On a quadratic loss (linear model, squared error) larger rates diverge and smaller ones do not. A
run has diverged if its last loss is NaN or above its first. Then five schedules, with and without warm-up, on
minibatches for an equal number of updates. The peak of each is chosen from the same rates on validation examples and
tuning seeds; the results are those of fresh seeds, paired by seed. Here a run has diverged if its training loss is
above ln 10.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import pandas as pd
import tqdm

from experiments._shared import all_devices, command_line, tables, tuning
from experiments._shared.descent import Fun, descend, largest_eigenvalue
from experiments._shared.run_folder import RunFolder
from experiments._shared.scheduled import CONTENDERS, DECAYS, scheduled_sgd
from experiments._shared.settings import RunSettings
from mlp_jax import datasets, losses, mlp, plots, sweep, training
from mlp_jax.confidence import change, mean_interval, show

HIDDEN, BATCH_SIZE, EXAMPLES = 32, 32, 150
MULTIPLES = np.array(
    [0.03, 0.06, 0.12, 0.25, 0.5, 0.8, 0.95, 1.05, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 16, 64]
)
UNITS = ("in units of 2/λ_max", "from", "to")
PEAKS = tuple(np.geomspace(0.125, 4.0, 9).round(3).tolist())


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    seeds: int = 40
    """Fresh seeds of the schedules; gradient descent at multiples of 2/λ_max uses a quarter as many."""
    tuning_seeds: int = 8
    """Seeds on which rates are chosen."""
    steps: int = 150
    """Steps of full-batch gradient descent."""
    epochs: int = 12
    """Epochs of every schedule."""


def squared(params: mlp.Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Return half the mean squared error against one-hot targets."""
    outputs = mlp.forward(params, inputs)
    return losses.mean(losses.squared_error(outputs, jax.nn.one_hot(targets, 10, dtype=outputs.dtype)))


def entropy(params: mlp.Params, inputs: Any, targets: Any, weights: Any = None, key: Any = None) -> jax.Array:
    """Return the mean cross-entropy."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, inputs), targets), weights)


# For each problem the loss `(params, inputs, targets) -> scalar` and the layer sizes of its network.
PROBLEMS: dict[str, tuple[Fun, tuple[int, ...]]] = {
    "linear, squared error": (squared, (64, 10)),
    "tanh, squared error": (squared, (64, HIDDEN, 10)),
    "tanh, cross-entropy": (entropy, (64, HIDDEN, 10)),
}


# A separate program at the lowest level: random numbers under vmap are slow to compile.
@functools.partial(jax.jit, static_argnames="sizes", compiler_options={"xla_backend_optimization_level": 0})
def _starts(keys: jax.Array, sizes: tuple[int, ...]) -> mlp.Params:
    return jax.vmap(lambda key: mlp.init(key, sizes))(keys)


def at_multiples(settings: Settings) -> pd.DataFrame:
    """Return one row for each problem, seed and multiple of 2/λ_max: first and last loss, and whether it diverged."""
    data = datasets.Examples(*(a[:EXAMPLES] for a in datasets.load("digits").train))
    count = max(2, settings.seeds // 4)
    keys = jax.random.split(jax.random.key(settings.seed), settings.tuning_seeds + count)
    frames = []
    for name, (fun, sizes) in list(PROBLEMS.items())[:: 2 if settings.quick else 1]:
        starts = _starts(keys[settings.tuning_seeds :], sizes)
        each = [jax.tree.map(lambda a, k=k: a[k], starts) for k in range(count)]
        theory = np.array([2 / largest_eigenvalue(fun, params, data, keys[0]) for params in each])
        rates = jnp.asarray(np.outer(MULTIPLES, theory), jnp.float32)
        values = np.asarray(descend(optax.sgd, fun, starts, rates, settings.steps, data))
        frame = pd.DataFrame({"problem": name, "seed": np.tile(np.arange(count), len(MULTIPLES))})
        frame["multiple"], frame["2/λ_max"] = np.repeat(MULTIPLES, count), np.tile(theory, len(MULTIPLES))
        frame["first loss"], frame["last loss"] = values[..., 0].ravel(), values[..., -1].ravel()
        frames.append(frame.assign(diverged=~(frame["last loss"] <= frame["first loss"])))
    return pd.concat(frames, ignore_index=True)


def thresholds(descents: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each problem: 2/λ_max, and the smallest rate that diverged, with 95 % intervals over seeds."""
    rows = []
    for name, part in descents.groupby("problem", sort=False):
        theory = part.groupby("seed")["2/λ_max"].first()
        first = part[part.diverged].groupby("seed").multiple.min()
        row = {"problem": name, "2/λ_max": _shown(theory), "diverged at some rate": f"{len(first)}/{len(theory)}"}
        row["diverged below 2/λ_max"] = part.diverged[part.multiple < 1].sum()
        row["first diverging η"] = _shown(first * theory[first.index])
        # The mean and interval of a ratio are taken of its logarithm.
        mean, half = map(float, mean_interval(np.log(first))) if len(first) else (np.nan, np.nan)
        rows.append(row | dict(zip(UNITS, np.exp([mean, mean - half, mean + half]), strict=True)))
    return pd.DataFrame(rows)


def _shown(values: pd.Series) -> str:
    # The Hessian of the linear model is the same at every start; equal numbers have no interval.
    equal = len(values) and np.ptp(values) <= 1e-9 * abs(values.iloc[0])
    return f"{values.iloc[0]:.3g}" if equal else show(values) if len(values) else "none"


def _scores(validation: datasets.Examples, test: datasets.Examples, state: training.State) -> dict[str, jax.Array]:
    accuracy = losses.accuracy(mlp.forward(state.params, test.inputs), test.targets)
    found = {"validation_loss": entropy(state.params, *validation), "test_loss": entropy(state.params, *test)}
    return found | {"test_accuracy": 100 * losses.mean(accuracy)}


def compare_schedules(settings: Settings, folder: RunFolder, bar: tqdm.tqdm) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row for each peak tried, and one row for each contender and fresh seed."""
    digits = datasets.load("digits")
    kept, held = datasets.stratified_split(np.asarray(digits.train.targets), 300)
    train, validation = (datasets.Examples(*(a[rows] for a in digits.train)) for rows in (kept, held))
    train_all = functools.partial(
        sweep.run, jax.random.key(settings.seed), entropy, functools.partial(mlp.init, sizes=(64, HIDDEN, 10)), train,
        batch_sizes=(BATCH_SIZE,), mesh=all_devices.mesh(), epochs=settings.epochs, programs="per batch size",
        optimizer=scheduled_sgd(settings.epochs * -(-len(kept) // BATCH_SIZE)),
        record=jax.tree_util.Partial(_scores, validation, digits.test),
    )  # fmt: skip

    def trained(name: str, contenders: Any, peaks: Any, seeds: Any) -> dict[str, np.ndarray]:
        settings = {"contender": contenders}
        result = folder.kept(name, lambda: train_all(learning_rates=peaks, seeds=seeds, settings=settings))
        bar.update()
        lost = (result.diverged_at > 0) | ~(result.loss[..., -1] <= math.log(10))
        ends = {name: values[..., -1] for name, values in result.record.items()}
        return {**ends, "train_loss": result.loss[..., -1], "diverged": lost}

    search = trained("search", range(len(CONTENDERS)), PEAKS, settings.tuning_seeds)
    fresh = range(settings.tuning_seeds, settings.tuning_seeds + settings.seeds)
    tried, runs = [], []
    for k, (decay, warm) in enumerate(CONTENDERS):
        judged, lost = (search[name][0, :, k] for name in ("validation_loss", "diverged"))
        table = tuning.tries("peak", PEAKS, "validation_loss", judged, lost)
        tried.append(table.assign(decay=decay, warmup=warm)[["decay", "warmup", *table.columns]])
        ends = trained(f"{decay}_warm_{warm}", (k,), tuple(table.peak[table.chosen]), fresh)
        frame = pd.DataFrame({"seed": fresh, **{name: values[0, 0, 0] for name, values in ends.items()}})
        frame = frame.astype(dict.fromkeys(search.keys() - {"train_loss", "diverged"}, float))
        frame.loc[frame.diverged, frame.columns[1:-1]] = np.nan
        runs.append(frame.assign(decay=decay, warmup=warm, diverged=frame.pop("diverged")))
    return pd.concat(tried, ignore_index=True), pd.concat(runs, ignore_index=True)


def over_constant(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a column of the runs minus that of a constant rate, (seeds, contenders)."""
    table = runs.pivot(index="seed", columns=["decay", "warmup"], values=column)
    return table.sub(table[CONTENDERS[0]], axis=0)


def summary(tried: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each contender: its peak, means with 95 % intervals, differences from a constant rate."""
    rows: list[dict[str, Any]] = []
    for (decay, warm), part in runs.groupby(["decay", "warmup"], sort=False):
        search = tried[(tried.decay == decay) & (tried.warmup == warm)]
        row = {"decay": decay, "warmup": warm, "peak": search.peak[search.chosen].item()}
        undiverged = search.peak[(search.diverged == 0).cummin()]
        row |= {"at_edge": search.at_edge.any(), "usable to": max(undiverged, default=0.0)}
        row["diverged"] = f"{part.diverged.sum()}/{len(part)}"
        for column in ("train_loss", "test_loss", "test_accuracy"):
            row[column] = "none" if part.diverged.all() else show(part[column].dropna())
        for column, name in (("test_loss", "loss − constant"), ("test_accuracy", "accuracy − constant")):
            difference = over_constant(runs, column)[decay, warm].dropna()
            row[name] = show(difference, 2) if len(difference) and rows else ""
        rows.append(row)
    return pd.DataFrame(rows)


def draw(descents: pd.DataFrame, runs: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: where gradient descent diverges, and the schedules against a constant rate."""
    figure = matplotlib.figure.Figure(figsize=(11, 4.2), layout="constrained")
    where, ends = figure.subplots(1, 2)
    looks = (("D:", plots.BLUE), ("s--", plots.ORANGE), ("o-", plots.GREEN))
    for (name, part), (look, color) in zip(descents.groupby("problem", sort=False), looks, strict=False):
        share = 100 * part.groupby("multiple").diverged.mean()
        where.semilogx(share.index, share, look, color=color, ms=4, label=name)
    where.axvline(1, color="black", lw=0.7)
    where.set(xlabel="learning rate · λ_max / 2 at the start", ylabel="diverged runs (%)", title="gradient descent")
    where.legend(fontsize="small")
    differences = over_constant(runs, "test_loss")
    for k, contender in enumerate(CONTENDERS[1:]):
        mean, half = mean_interval(differences[contender].dropna())
        ends.errorbar(mean, k, xerr=half, color=plots.BLUE, fmt="os"[contender[1]], capsize=3)
    names = [f"{decay}{', warm-up' if warm else ''}" for decay, warm in CONTENDERS[1:]]
    ends.set(yticks=range(len(names)), yticklabels=names, title="against a constant rate (paired, 95 %)")
    ends.set(xlabel="test loss − that of a constant rate (nats)")
    ends.axvline(0, color="black", lw=0.7)
    ends.locator_params("x", nbins=6)
    return figure


def conclusion(theory: pd.DataFrame, tried: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers."""
    edges = theory[["problem", *UNITS]].itertuples(index=False)
    first = "; ".join(
        f"{name}: {mean:.2f}" + (f" ({low:.2f} to {high:.2f})" if low < high else "") for name, mean, low, high in edges
    )
    differences = over_constant(runs, "test_loss")
    decays = ", ".join(f"{change(differences[decay, False])} for {decay}" for decay in DECAYS[1:])
    warm = ", ".join(f"{change(differences[decay, True] - differences[decay, False])} for {decay}" for decay in DECAYS)
    return (
        f"Found: the smallest rate tried at which gradient descent diverged, in units of 2/λ_max: {first};"
        f" {tables.count(theory['diverged below 2/λ_max'].sum(), 'run')} diverged below 1. The test loss against that"
        f" of a constant rate: {decays}; with warm-up against without: {warm}. {runs.diverged.sum()} of {len(runs)}"
        f" fresh runs diverged, and {tried.at_edge.sum()} of {len(CONTENDERS)} peaks were chosen at an edge of the"
        " search."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Descend, tune, train, print and save; return one row for each contender and fresh seed."""
    folder = RunFolder("learning_rates", settings, settings.output, resume=settings.resume)
    if settings.quick:
        seeds, tuning_seeds = min(6, settings.seeds), min(2, settings.tuning_seeds)
        steps, epochs = -(-settings.steps // 3), -(-settings.epochs // 3)
        settings = dataclasses.replace(settings, seeds=seeds, tuning_seeds=tuning_seeds, steps=steps, epochs=epochs)
    with tqdm.tqdm(total=2 + len(CONTENDERS), unit="part", leave=False, disable=None) as bar:
        descents = folder.kept("multiples", lambda: at_multiples(settings))
        bar.update()
        tried, runs = compare_schedules(settings, folder, bar)
    theory, table = thresholds(descents), summary(tried, runs)
    frames = {"schedules": table, "thresholds": theory, "descents": descents, "tuning": tried, "runs": runs}
    for name, frame in frames.items():
        folder.table(name, frame)
    print(f"Schedules, {settings.epochs} epochs, {settings.seeds} fresh seeds (nats, points; 95 %):")
    print(tables.text(table.drop(columns=["at_edge", "usable to", "diverged", "train_loss"]), "schedules"))
    folder.figure("learning_rates", draw(descents, runs))
    folder.conclude(conclusion(theory, tried, runs))
    return runs


if __name__ == "__main__":
    command_line.start("learning_rates", run, Settings, __doc__)
