"""Is raising the batch size as good as lowering the learning rate?

A tanh network on digits with 20 % wrong labels is trained by SGD with momentum for an equal number of epochs in three
ways: with a constant rate, with a rate divided by 4 after half and after three quarters of the epochs, and with a batch
size multiplied by 4 instead. The last two have the same noise scale ε N / B in every epoch, and Smith et al. (2018),
"Don't decay the learning rate, increase the batch size", find that they end alike, the last after fewer updates. Each
way has its own initial rate, from the same ones tried on validation examples and tuning seeds; the results are those of
fresh seeds, paired by seed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import matplotlib.figure
import numpy as np
import optax
import pandas as pd
import tqdm

from experiments._shared import command_line, tables, tuning
from experiments._shared.run_folder import RunFolder
from experiments._shared.settings import RunSettings
from mlp_jax import datasets, losses, mlp, penalties, plots, sweep, training
from mlp_jax.confidence import change, mean_interval, show

HIDDEN, BATCH_SIZE, FACTOR, MOMENTUM, DECAY, WRONG = 32, 16, 4, 0.9, 1e-3, 0.2
WAYS = ("constant", "lower the rate", "raise the batch size")
RATES = tuple(np.geomspace(0.005, 0.64, 8).round(3).tolist())
MEASURES = {"train_loss": "training loss", "test_loss": "test loss", "test_accuracy": "test accuracy (%)"}


@dataclasses.dataclass(frozen=True)
class Settings(RunSettings):
    """Settings of the run; each is written to settings.json."""

    seeds: int = 24
    """Fresh seeds."""
    tuning_seeds: int = 6
    """Seeds on which the initial rates are chosen."""
    epochs: int = 40
    """Epochs of every run."""


def entropy(params: mlp.Params, x: Any, y: Any, weights: Any = None) -> jax.Array:
    """Return the mean cross-entropy."""
    return losses.mean(losses.cross_entropy(mlp.forward(params, x), y), weights)


def loss(params: mlp.Params, x: Any, y: Any, weights: Any, key: Any) -> jax.Array:
    """Return the loss of a batch, with weight decay."""
    return entropy(params, x, y, weights) + penalties.l2(params, DECAY)


def parts_of_digits(seed: int) -> tuple[datasets.Examples, datasets.Examples, datasets.Examples]:
    """Return the examples to train on, with wrong labels, to validate and to test."""
    digits = datasets.load("digits")
    kept, held = datasets.stratified_split(np.asarray(digits.train.targets), 300)
    train, validation = (datasets.Examples(*(a[rows] for a in digits.train)) for rows in (kept, held))
    draw = np.random.default_rng(seed)
    wrong = (train.targets + draw.integers(1, 10, len(kept))) % 10
    targets = np.where(draw.random(len(kept)) < WRONG, wrong, train.targets).astype(np.int32)
    return datasets.Examples(train.inputs, jax.numpy.asarray(targets)), validation, digits.test


def sizes_at(ends: tuple[int, int]) -> Callable[[jax.Array], jax.Array]:
    """Return the batch size as a function of the update, multiplied by FACTOR after each of two updates."""

    def raised(update: jax.Array) -> jax.Array:
        return BATCH_SIZE * FACTOR ** ((update >= ends[0]).astype(int) + (update >= ends[1]).astype(int))

    return raised


def contenders(examples: int, epochs: int) -> dict[str, tuple[Any, Any]]:
    """Return for each way the batch size, and rate -> optimizer."""
    first, second, (small, middle) = (
        epochs // 2,
        epochs // 4,
        (-(-examples // n) for n in (BATCH_SIZE, FACTOR * BATCH_SIZE)),
    )
    falls = {first * small: 1 / FACTOR, (first + second) * small: 1 / FACTOR}

    def plain(learning_rate: jax.Array) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, MOMENTUM)

    def falling(learning_rate: jax.Array) -> optax.GradientTransformation:
        return optax.sgd(optax.piecewise_constant_schedule(learning_rate, falls), MOMENTUM)

    raised = sizes_at((first * small, first * small + second * middle))
    return dict(zip(WAYS, ((BATCH_SIZE, plain), (BATCH_SIZE, falling), (raised, plain)), strict=True))


def _scores(parts: tuple[datasets.Examples, ...], state: training.State) -> dict[str, jax.Array]:
    accuracy = 100 * losses.mean(losses.accuracy(mlp.forward(state.params, parts[2].inputs), parts[2].targets))
    values = [entropy(state.params, *part) for part in parts]
    return dict(zip(("train_loss", "validation_loss", "test_loss"), values, strict=True)) | {"test_accuracy": accuracy}


def compare(settings: Settings, folder: RunFolder) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one row for each rate tried, and one row for each way, fresh seed and record."""
    parts = parts_of_digits(settings.seed)
    fresh = range(settings.tuning_seeds, settings.tuning_seeds + settings.seeds)
    common = functools.partial(
        sweep.run, jax.random.key(settings.seed), loss, functools.partial(mlp.init, sizes=(64, HIDDEN, 10)), parts[0],
        epochs=settings.epochs, record=jax.tree_util.Partial(_scores, parts),
    )  # fmt: skip
    ways = contenders(len(parts[0].targets), settings.epochs)
    tried, curves = [], []
    for way, (batch_size, optimizer) in tqdm.tqdm(ways.items(), unit="way", leave=False, disable=None):
        train = functools.partial(common, batch_sizes=(batch_size,), optimizer=optimizer)

        def trained(name: str, train: Any = train, **lanes: Any) -> dict[str, Any]:
            def numbers() -> dict[str, Any]:
                result = train(**lanes)
                made = {"updates": result.updates[0], "examples": result.examples[0]}
                return {"record": result.record, "lost": result.diverged_at > 0, **made}

            return folder.kept(name, numbers)

        search = trained(f"search {way}", learning_rates=RATES, seeds=settings.tuning_seeds)
        judged = search["record"]["validation_loss"][0, ..., -1]
        table = tuning.tries("rate", RATES, "validation_loss", judged, search["lost"][0])
        tried.append(table.assign(way=way, updates=search["updates"][-1]))
        ends = trained(way, learning_rates=tuple(table.rate[table.chosen]), seeds=fresh)
        for k, seed in enumerate(fresh):
            frame = pd.DataFrame({name: values[0, 0, k] for name, values in ends["record"].items()})
            columns = {"way": way, "seed": seed, "diverged": ends["lost"][0, 0, k], "updates": ends["updates"]}
            curves.append(frame.assign(epoch=ends["examples"] / len(parts[0].targets), **columns))
    return pd.concat(tried, ignore_index=True), pd.concat(curves, ignore_index=True)


def against(curves: pd.DataFrame, column: str, way: str, other: str) -> pd.Series:
    """Return the last values of one way minus those of another, by seed, without runs that diverged."""
    last = curves[~curves.diverged].groupby(["way", "seed"])[column].last().unstack("way")
    return (last[way] - last[other]).dropna()


def summary(tried: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each way: its rate and updates, means with 95 % intervals, differences from lower rates."""
    rows = []
    for way, part in curves.groupby("way", sort=False):
        chosen = tried[(tried.way == way) & tried.chosen].iloc[0]
        row = {"way": way, "rate": chosen.rate, "updates": part.updates.max()}
        last = part[~part.diverged].groupby("seed").last()
        row |= {column: show(last[column]) for column in MEASURES}
        for column in ("test_loss", "test_accuracy"):
            name = f"{column} − lower the rate"
            row[name] = "" if way == WAYS[1] else show(against(curves, column, str(way), WAYS[1]), 2)
        row |= {"diverged": f"{int(part.groupby('seed').diverged.last().sum())}/{part.seed.nunique()}"}
        rows.append(row | {"at_edge": bool(chosen.at_edge)})
    return pd.DataFrame(rows)


def draw(curves: pd.DataFrame) -> matplotlib.figure.Figure:
    """Return the figure: training and test loss against epochs, and test loss against updates."""
    figure = matplotlib.figure.Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    shown = (("epoch", "train_loss"), ("epoch", "test_loss"), ("updates", "test_loss"))
    looks = ((plots.GREEN, "-"), (plots.BLUE, "-"), (plots.ORANGE, "--"))
    ways = curves[~curves.diverged].groupby("way", sort=False)
    for (way, part), (color, line) in zip(ways, looks, strict=True):
        for panel, (across, column) in zip(axes, shown, strict=True):
            by_seed = part.set_index(["seed", across])[column].unstack("seed")
            mean, half = mean_interval(by_seed.to_numpy(), axis=1)
            panel.plot(by_seed.index, mean, color=color, ls=line, label=str(way))
            panel.fill_between(by_seed.index, mean - half, mean + half, color=color, alpha=0.2, lw=0)
    for panel, (across, column) in zip(axes, shown, strict=True):
        panel.set(xlabel=across, ylabel=f"{MEASURES[column]} (nats)")
    title = "mean and 95 % interval over seeds"
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, title=title, loc="outside upper center", ncols=len(WAYS), frameon=False)
    return figure


def conclusion(table: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return what was found, as one sentence filled with numbers."""
    updates = table.set_index("way").updates
    constant, lower, higher = WAYS
    changes = {column: change(against(curves, column, higher, lower)) for column in MEASURES}
    times = FACTOR**2
    return (
        f"Found: with the batch size raised from {BATCH_SIZE} to {times * BATCH_SIZE} instead of the rate divided by"
        f" {times}, after {updates[higher]} updates instead of {updates[lower]}: training loss {changes['train_loss']},"
        f" test loss {changes['test_loss']}, test accuracy in points {changes['test_accuracy']}; against a"
        f" constant rate: test loss {change(against(curves, 'test_loss', lower, constant))} with lower rates,"
        f" {change(against(curves, 'test_loss', higher, constant))} with larger batches;"
        f" {table.at_edge.sum()} of {len(table)} rates are at an edge of the search."
    )


def run(settings: Settings) -> pd.DataFrame:
    """Tune, train, print and save; return one row for each way."""
    folder = RunFolder("batch_size_schedule", settings, settings.output, resume=settings.resume)
    if settings.quick:
        seeds, tuning_seeds = min(4, settings.seeds), min(2, settings.tuning_seeds)
        settings = dataclasses.replace(
            settings, seeds=seeds, tuning_seeds=tuning_seeds, epochs=min(12, settings.epochs)
        )
    tried, curves = compare(settings, folder)
    table = summary(tried, curves)
    for name, frame in {"ways": table, "tuning": tried, "curves": curves}.items():
        folder.table(name, frame)
    print(
        f"Digits with {WRONG:.0%} wrong labels, {settings.epochs} epochs, {settings.seeds} fresh seeds (nats, %; 95 %):"
    )
    print(tables.text(table, "ways"))
    folder.figure("batch_size_schedule", draw(curves))
    folder.conclude(conclusion(table, curves))
    return table


if __name__ == "__main__":
    command_line.start("batch_size_schedule", run, Settings, __doc__)
